//! The programs, and how they are run: each time in an empty directory of the same name.

use std::ffi::OsStr;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::allocators::Allocator;
use crate::run::{self, Ran};

/// A program and its work.
pub(crate) struct Program {
    pub name: &'static str,
    /// What must be on the PATH.
    needs: &'static [&'static str],
    /// Files without which it has nothing to do.
    files: &'static [&'static str],
    /// What is measured, for `sh`.
    script: &'static str,
    /// What asks it meanwhile, on the C library's heap and not measured; then this output is compared.
    client: Option<&'static str>,
    /// Whether it is one of the two of the short form.
    pub quick: bool,
}

pub(crate) const ALL: [Program; 6] = [
    Program {
        name: "python",
        needs: &["/usr/bin/python3"],
        files: &["/usr/lib/python3.11/test/test_json"],
        script: include_str!("../scripts/python.sh"),
        client: None,
        quick: false,
    },
    Program {
        name: "git",
        needs: &["git", "awk", "cksum"],
        files: &[],
        script: include_str!("../scripts/git.sh"),
        client: None,
        quick: true,
    },
    Program {
        name: "sqlite",
        needs: &["sqlite3"],
        files: &[],
        script: include_str!("../scripts/sqlite.sh"),
        client: None,
        quick: false,
    },
    Program {
        name: "perl",
        needs: &["perl"],
        files: &[],
        script: include_str!("../scripts/perl.sh"),
        client: None,
        quick: true,
    },
    Program {
        name: "c++",
        needs: &["c++", "cksum"],
        files: &[],
        script: include_str!("../scripts/cpp.sh"),
        client: None,
        quick: false,
    },
    Program {
        name: "redis",
        needs: &["redis-server", "redis-cli", "redis-benchmark"],
        files: &[],
        script: include_str!("../scripts/redis.sh"),
        client: Some(include_str!("../scripts/redis-client.sh")),
        quick: false,
    },
];

impl Program {
    /// What is missing for it, if anything.
    pub(crate) fn missing(&self) -> Option<&'static str> {
        let program = self.needs.iter().find(|name| !is_on_path(name));
        program.or_else(|| self.files.iter().find(|file| !Path::new(file).exists())).copied()
    }

    /// Runs it once on a heap.
    pub(crate) fn run(&self, allocator: &Allocator) -> Result<Ran, String> {
        let place = Place::new()?;
        let port = free_port()?;
        let command = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-euc", script]).current_dir(place.dir.join("work")).env("PORT", port.to_string());
            command.env("INPUTS", concat!(env!("CARGO_MANIFEST_DIR"), "/scripts")).env("LC_ALL", "C");
            command
        };
        let mut program = command(self.script);
        allocator.serve(&mut program);
        let Some(script) = self.client else { return run::run(&mut program, &place.dir) };
        let server = run::start(&mut program, &place.dir)?;
        let mut client = command(script);
        Allocator::glibc().serve(&mut client);
        let asked = run::run(&mut client, &place.dir.join("client"));
        let ran = run::wait(server, &place.dir)?;
        let asked = asked?;
        Ok(Ran { succeeded: ran.succeeded && asked.succeeded, out: asked.out, err: asked.err + &ran.err, ..ran })
    }
}

/// A directory for one run, empty at its start and gone at its end. Its name is always the same, since programs tell
/// it.
struct Place {
    dir: PathBuf,
}

impl Place {
    fn new() -> Result<Self, String> {
        let place = Self { dir: std::env::temp_dir().join(format!("pagemill-programs-{}", std::process::id())) };
        place.remove();
        for part in ["work", "client"] {
            fs::create_dir_all(place.dir.join(part)).map_err(|error| format!("{}: {error}", place.dir.display()))?;
        }
        Ok(place)
    }

    fn remove(&self) {
        // What is not there need not go.
        let _ = fs::remove_dir_all(&self.dir);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.remove();
    }
}

fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind("127.0.0.1:0").map_err(|error| format!("no port: {error}"))?;
    listener.local_addr().map(|address| address.port()).map_err(|error| format!("no port: {error}"))
}

fn is_on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    Path::new(name).is_absolute() && Path::new(name).is_file()
        || std::env::split_paths::<OsStr>(&path).any(|dir| dir.join(name).is_file())
}
