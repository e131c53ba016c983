//! A small file system that a test can fill up. Mounting it needs root.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// A mounted file system in memory. Unmounted with this value.
#[derive(Debug)]
pub struct SmallDisk(TempDir);

impl SmallDisk {
    /// Mounts one with this many bytes. Prints a line and returns `None` if this machine does not allow mounts.
    #[must_use]
    pub fn new(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"], directory.path());
        if !mounted {
            println!("SKIPPED: this machine does not allow mounts, so no file system can be filled up");
            return None;
        }
        Some(Self(directory))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    /// Gives it more space.
    pub fn grow(&self, bytes: u64) {
        assert!(mount(&["-o", &format!("remount,size={bytes}")], self.0.path()));
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> bool {
    Command::new("mount").args(arguments).arg(at).status().is_ok_and(|status| status.success())
}
