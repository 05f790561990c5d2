#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::print_stdout, clippy::unwrap_used)]
use pulse_simulator::*;
fn main(){
 let a:Vec<String>=std::env::args().collect();
 let o=SimulateFileOptions{blocks:a[1].parse().unwrap(),txs_per_block:a[2].parse().unwrap(),seed:1,out:a[3].clone().into()};
 let t=std::time::Instant::now();
 let mut last=(0,0,0,0,0);
 let s=write_chain(&o,|s|{ if s.height%20==0||(s.height<130&&s.height>100){println!("{} txs {} in {} out {} bytes {} {:?}",s.height,s.txs-last.0,s.inputs-last.1,s.outputs-last.2,s.bytes-last.3,t.elapsed()); } last=(s.txs,s.inputs,s.outputs,s.bytes,0);}).unwrap();
 println!("{s:?} {:?}",t.elapsed());
}
