//! The load's own process: orders come on standard input, one byte each, and reports go to standard output, one line
//! each.

use std::io::{self, Read as _};

use super::Settings;
use super::drive::Drive;
use super::link::Link;

/// Must be called first in `main`: if this process was started as a load, it runs the load and never returns.
pub fn run_if_asked() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(ARGUMENT) {
        let settings = arguments.next().expect("settings follow");
        run(serde_json::from_str(&settings).unwrap()).unwrap();
        std::process::exit(0);
    }
}

fn run(settings: Settings) -> io::Result<()> {
    rlimit::increase_nofile_limit(u64::MAX)?;
    let mut links = Vec::new();
    for place in 0..settings.devices {
        links.push(Link::open(&settings, place)?);
        // Some at a time: neither a wait for each, nor more than the listener's queue holds.
        if links.len().is_multiple_of(LOGINS) || place + 1 == settings.devices {
            let begin = (links.len() - 1) / LOGINS * LOGINS;
            links[begin..].iter_mut().try_for_each(Link::logged_in)?;
        }
    }
    let mut drive = Drive::new(settings, links)?;
    println!("{READY}");
    let mut order = [0];
    if io::stdin().read(&mut order)? == 1 && order[0] == GO {
        println!("{}", serde_json::to_string(&drive.run()?)?);
        // The connections stay open until the benchmark has seen enough.
        io::stdin().read_to_end(&mut Vec::new())?;
    }
    Ok(())
}

pub(super) const ARGUMENT: &str = "load";
pub(super) const READY: &str = "ready";
pub(super) const GO: u8 = b'g';
pub(super) const STOP: u8 = b's';
const LOGINS: usize = 256;
