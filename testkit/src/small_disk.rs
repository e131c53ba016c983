//! A small file system of its own, for filling up. Needs root; says so where that is not there.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

pub(crate) struct SmallDisk(TempDir);

impl SmallDisk {
    /// Of so many bytes; `None` where this machine does not allow it, which is said.
    pub(crate) fn new(bytes: u64) -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let mounted = mount(&["-t", "tmpfs", "-o", &format!("size={bytes}"), "tmpfs"], directory.path());
        if !mounted {
            println!("SKIPPED: a file system cannot be mounted here, so none can be filled up");
            return None;
        }
        Some(Self(directory))
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.0.path().to_owned()
    }

    pub(crate) fn grow(&self, bytes: u64) {
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
