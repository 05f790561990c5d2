// An independent Bitcoin node (bcoin, in memory, on regtest) under the control of a test:
// one JSON array per line in, one JSON value per line out.
//
//   ["tip"]                  -> {height, hash}
//   ["mine", COUNT, KEYHASH] -> the new tip; coinbases pay to the key hash (hex)
//   ["send", TX_HEX]         -> txid, or {error}
//   ["mempool"]              -> [txid, ...]
//   ["connect", HOST, PORT]  -> true
//   ["block", HEX]           -> whether it became part of the chain
//   ["peers"]                -> how many
//
// Prints {"port": PORT} when it listens.

'use strict';

process.env.NODE_BACKEND = 'js';
// Its database has a native part, which a node in memory never calls.
const path = require.resolve('leveldown');
require.cache[path] = { id: path, filename: path, loaded: true, exports: function() {} };

const readline = require('readline');
const FullNode = require('bcoin/lib/node/fullnode');
const TX = require('bcoin/lib/primitives/tx');
const Block = require('bcoin/lib/primitives/block');
const Address = require('bcoin/lib/primitives/address');

const node = new FullNode({
  network: 'regtest', db: 'memory', memory: true, apiKey: 'x', noAuth: true,
  listen: true, host: '127.0.0.1', publicHost: '127.0.0.1', port: Number(process.argv[2]),
  httpPort: Number(process.argv[3]), maxOutbound: 1, seeds: [], discover: false, selfish: false,
  logConsole: false, logFile: false, workers: false, bip37: false, compact: true
});
node.on('error', () => {});

const tip = () => ({ height: node.chain.height, hash: node.chain.tip.rhash() });

const commands = {
  tip,
  async mine(count, keyhash) {
    const address = Address.fromPubkeyhash(Buffer.from(keyhash, 'hex'));
    for (let i = 0; i < count; i++) {
      const job = await node.miner.createJob(null, address);
      await node.chain.add(await job.mineAsync());
    }
    return tip();
  },
  async send(hex) {
    const tx = TX.fromRaw(Buffer.from(hex, 'hex'));
    const missing = await node.mempool.addTX(tx);
    if (missing)
      throw new Error('missing inputs');
    node.pool.broadcast(tx);
    return tx.txid();
  },
  mempool: () => node.mempool.getSnapshot().map(hash => Buffer.from(hash, 'hex').reverse().toString('hex')),
  async connect(host, port) {
    await node.rpc.execute({ method: 'addnode', params: [`${host}:${port}`, 'onetry'] });
    return true;
  },
  async block(hex) {
    return (await node.chain.add(Block.fromRaw(Buffer.from(hex, 'hex')))) != null;
  },
  peers: () => node.pool.peers.size()
};

(async () => {
  await node.open();
  await node.connect();
  node.startSync();
  console.log(JSON.stringify({ port: node.pool.options.port }));
  const lines = readline.createInterface({ input: process.stdin });
  for await (const line of lines) {
    let answer;
    try {
      const [name, ...args] = JSON.parse(line);
      answer = await commands[name](...args);
    } catch (err) {
      answer = { error: err.message };
    }
    console.log(JSON.stringify(answer));
  }
  process.exit(0);
})().catch((err) => {
  console.error(err);
  process.exit(1);
});
