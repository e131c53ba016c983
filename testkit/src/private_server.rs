//! A PostgreSQL of a test's own.

use std::process::Command;

/// A PostgreSQL of the test's own, which it may stop without disturbing others.
pub struct PrivateServer {
    name: String,
    pub url: String,
}

impl PrivateServer {
    pub fn new(name: &str) -> Self {
        let name = format!("{name}-{}", std::process::id());
        let url = services(&["pg-new", &name]);
        Self { name, url: url.trim().to_owned() }
    }

    pub fn stop(&self, how: &[&str]) {
        services(&[&["pg-stop", &self.name], how].concat());
    }

    pub fn start(&self) {
        services(&["pg-start", &self.name]);
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        let _ = Command::new(SERVICES).args(["pg-rm", &self.name]).output();
    }
}

const SERVICES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/services");

fn services(arguments: &[&str]) -> String {
    let output = Command::new(SERVICES).args(arguments).output().unwrap();
    assert!(output.status.success(), "services {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
