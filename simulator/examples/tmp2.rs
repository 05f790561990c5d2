#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::print_stdout, clippy::unwrap_used)]
use bitcoinkernel::*;
use std::io::Read;
fn main(){
 let a:Vec<String>=std::env::args().collect();
 let ctx=ContextBuilder::new().chain_type(ChainType::Regtest).build().unwrap();
 let m=ChainstateManager::builder(&ctx,&a[2],&format!("{}/blocks",a[2])).unwrap().worker_threads(2).build().unwrap();
 let mut f=std::io::BufReader::new(std::fs::File::open(&a[1]).unwrap());
 let t=std::time::Instant::now(); let mut n=0u32; let mut h=[0u8;8];
 while f.read_exact(&mut h).is_ok(){ let l=u32::from_le_bytes(h[4..].try_into().unwrap()); let mut b=vec![0;l as usize]; f.read_exact(&mut b).unwrap();
  let _=m.process_block(&Block::new(&b).unwrap());
  if n%100==0 || m.active_chain().height()!=n as i32 {println!("{n} {} {:?}",m.active_chain().height(),t.elapsed());}
  if m.active_chain().height()!=n as i32 {break}
  n+=1; }
 println!("end {} {:?}", m.active_chain().height(), t.elapsed());
}
