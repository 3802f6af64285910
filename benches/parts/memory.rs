//! Bytes that sessions, tokens and idle connections take, and whether the two maps hold to their bounds.
//!
//! What a process has given back to its allocator it may not have given back to the system: each row is measured by a
//! process of its own, which this one starts.

use std::process::{Command, ExitCode};
use std::sync::Arc;

use mintgate::lifecycle::Shutdown;
use mintgate::listener::bound::{Bound, Inherited};
use mintgate::metrics::CacheName;
use mintgate::server::{DataListener, Door, Terms, Workers};
use mintgate::session::memory::Remembered;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::request::{head, serve_upstream};
use crate::world::{Room, World, write};

/// By how much memory may grow beyond what a map's entries weigh.
const FACTOR: f64 = 1.15;

const MIB: u64 = 1 << 20;

/// What is held, with how many bytes of claims or token, and within how many bytes.
const ROWS: [[&str; 4]; 14] = [
    ["sessions", "none", "100000", "1024"],
    ["sessions", "380", "100000", "1024"],
    ["sessions", "2000", "100000", "1024"],
    ["tokens", "300", "100000", "1024"],
    ["tokens", "900", "100000", "1024"],
    ["connections", "http1", "4000", ""],
    // Twice what they may hold.
    ["sessions", "none", "bound", "64"],
    ["sessions", "380", "bound", "64"],
    ["sessions", "none", "bound", "512"],
    ["sessions", "4000", "bound", "64"],
    ["tokens", "50", "bound", "64"],
    ["tokens", "900", "bound", "64"],
    ["tokens", "900", "bound", "512"],
    ["tokens", "8000", "bound", "64"],
];

/// Without words every row, each by a process of its own; with a row's words that one.
pub(crate) fn main(words: &[String]) -> ExitCode {
    if let [what, size, count, mib] = words {
        let good = row(what, size, count, mib.parse().unwrap_or(0));
        return if good { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    println!(
        "| what | entries | weigh, bytes each | memory, bytes each | bound, MiB | weigh, MiB | memory, MiB | memory / bound |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let run = |row: &[&str; 4]| {
        let mut own = Command::new(std::env::current_exe().unwrap());
        own.arg("memory").args(row.map(|word| if word.is_empty() { "0" } else { word })).status().unwrap().success()
    };
    // Every row is shown, also after one that is not good.
    let bad = ROWS.iter().filter(|row| !run(row)).count();
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn row(what: &str, size: &str, count: &str, mib: u64) -> bool {
    if what == "connections" {
        let each = connections(count.parse().unwrap());
        println!("| idle connections, {size} | {count} | | {each} | | | | |");
        return true;
    }
    let mut room = Room { session_bytes: mib * MIB, token_bytes: mib * MIB, ..Room::default() };
    if what == "tokens" {
        room.token = size.parse().unwrap();
        // No session is remembered beside them.
        room.session_bytes = 1;
    } else {
        room.claims = size.parse().ok();
    }
    let world = World::new(room);
    let mut held = Held { world, credential: String::new(), next: 0 };
    held.credential = held.world.credential();
    let before = resident();
    let bounded = count == "bound";
    // A full map does not get heavier.
    let count = count.parse().unwrap_or_else(|_| held.fill(what, mib * MIB));
    held.put(what, count);
    let grown = resident() - before;
    let (entries, weight) = held.weight(what);
    let of = |bytes: u64| bytes / entries;
    print!("| {what} of {size} | {entries} | {} | {} ", of(weight), of(grown));
    #[expect(clippy::cast_precision_loss, reason = "for a reader")]
    let ratio = grown as f64 / (mib * MIB) as f64;
    if bounded {
        println!("| {mib} | {} | {} | {ratio:.2} |", weight / MIB, grown / MIB);
    } else {
        println!("| | | | |");
    }
    !bounded || ratio <= FACTOR
}

/// A world with callers in it.
struct Held {
    world: World,
    credential: String,
    next: usize,
}

// === impl Held ===

impl Held {
    /// Puts callers until the map weighs nearly what it may, and tells how many make it twice that.
    fn fill(&mut self, what: &str, bound: u64) -> usize {
        while self.weight(what).1 < bound / 10 * 9 {
            self.put(what, 100);
        }
        self.next * 12 / 10
    }

    fn put(&mut self, what: &str, count: usize) {
        for _ in 0..count {
            let remembered = self.remember();
            if what == "tokens" {
                self.world.runtime.block_on(self.world.mint(self.world.key(&remembered)));
            }
            self.next += 1;
        }
    }

    /// With everything derived from the session that a request derives.
    fn remember(&mut self) -> Arc<Remembered> {
        let remembered = self.world.remember(self.next, &mut self.credential);
        self.world.key(&remembered);
        remembered.value(0, |session| session.sub.as_str().parse().ok());
        remembered
    }

    /// Entries and their weight.
    fn weight(&self, what: &str) -> (u64, u64) {
        let gateway = &self.world.gateway;
        if what == "sessions" {
            return (gateway.sessions.memory.entries(), gateway.sessions.memory.bytes());
        }
        gateway.tokens.observe();
        let control = self.world.metrics.control();
        let both = [control.cache_entries(CacheName::Tokens), control.cache_bytes(CacheName::Tokens)];
        let [entries, bytes] = both.map(|gauge| u64::try_from(gauge.get()).unwrap());
        (entries, bytes)
    }
}

/// Bytes that an idle connection takes after one request, without the kernel's part.
fn connections(count: usize) -> u64 {
    let world = World::new(Room::default());
    world.populate(1);
    let mut credential = world.credential();
    write(&mut credential, 0);
    let request = format!("{}{credential}\r\n\r\n", head());
    let listen = world.config.server.listen[0].clone();
    world.runtime.block_on(async {
        let bound = Bound::listen(&listen.address, &mut Inherited::default()).unwrap().remove(0);
        let address = bound.address().tcp().unwrap();
        let limits = Arc::new(world.config.server.limits.clone());
        let terms = Terms { limits, tls: [None, None], shutdown: Shutdown::new() };
        serve_upstream(&world, world.worker.spawner());
        let workers =
            Workers::in_place(vec![DataListener { listen, door: Door::Proxy, bound }], &world.worker, &terms).unwrap();
        let (mut open, mut resident_then) = (Vec::new(), 0);
        // The first half also fills what stays.
        for half in 0..2 {
            if half == 1 {
                resident_then = resident();
            }
            for _ in 0..count / 2 {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(request.as_bytes()).await.unwrap();
                let read = stream.read(&mut [0; 4096]).await.unwrap();
                assert!(read > 100);
                // The caller's half takes no memory of this process.
                open.push(stream.into_std().unwrap());
            }
        }
        let grown = resident() - resident_then;
        terms.shutdown.stop();
        drop(workers);
        grown / (count as u64 / 2)
    })
}

/// Bytes of this process in memory, without those of files.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let kib = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    kib.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
