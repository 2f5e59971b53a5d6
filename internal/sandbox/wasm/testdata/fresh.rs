// A guest that draws, by the keys of its maps, before it looks at the request and after.
use std::collections::HashMap;
use std::io::BufRead;
use std::sync::Mutex;
use std::time::{Instant, SystemTime};

static KEPT: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn order(map: &HashMap<u32, u32>) -> String {
    map.keys().map(|k| k.to_string()).collect::<Vec<_>>().join(" ")
}

fn main() {
    let early: HashMap<u32, u32> = (0..60).map(|i| (i, i)).collect();
    let began = Instant::now();
    println!("{{\"status\":200}}");
    let found = KEPT.lock().unwrap().first().cloned().or(std::env::var("SECRET").ok());
    println!("found: {}", found.unwrap_or("nothing".into()));
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).unwrap();
    let late: HashMap<u32, u32> = (0..60).map(|i| (i, i)).collect();
    println!("early: {}", order(&early));
    println!("late: {}", order(&late));
    println!("nanoseconds: {}", SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos());
    assert!(began.elapsed().as_secs() < 60);
    KEPT.lock().unwrap().push(line.clone());
    unsafe { std::env::set_var("SECRET", line.trim()) };
    println!("end");
}
