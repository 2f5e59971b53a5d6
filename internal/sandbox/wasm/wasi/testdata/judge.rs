// What the C program does, through Rust's standard library.
use std::collections::HashMap;
use std::io::{BufRead, IsTerminal, Read, Write};
use std::time::{Duration, Instant, SystemTime};

fn main() {
    for (i, a) in std::env::args().enumerate() {
        println!("arg {i} {a}");
    }
    println!("{:?} {:?}", std::env::var("GREETING"), std::env::var("MISSING"));
    let stdin = std::io::stdin();
    let mut first = String::new();
    stdin.lock().read_line(&mut first).unwrap();
    let mut rest = Vec::new();
    stdin.lock().read_to_end(&mut rest).unwrap();
    println!("{first:?} {:?}", String::from_utf8(rest));
    eprintln!("a line of the log");
    println!("{} {}", stdin.is_terminal(), std::io::stdout().is_terminal());
    println!("{:?}", std::fs::read("/etc/passwd").map_err(|e| e.to_string()));
    println!("{:?}", std::fs::write("x", "x").map_err(|e| e.to_string()));
    println!("{:?}", std::fs::metadata("/").map_err(|e| e.kind()));
    let began = Instant::now();
    std::thread::sleep(Duration::from_millis(1));
    println!("{}", began.elapsed() >= Duration::from_millis(1));
    println!("{}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() > 1577836800);
    let map: HashMap<i32, i32> = (0..100).map(|i| (i, i * i)).collect();
    println!("{}", map.values().sum::<i32>());
    std::io::stdout().flush().unwrap();
    std::process::exit(3);
}
