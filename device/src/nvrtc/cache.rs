//! Compiled programs on disk.
//!
//! One file per program and architecture, named after a hash of everything that decides its contents. It is written to a
//! temporary file beside it and renamed, so that processes that compile the same program at the same time each see a whole
//! file or none. It opens with a hash of the rest: a file that was cut off or changed is compiled again.

use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::read::{GzDecoder, GzEncoder};
use sha2::{Digest as _, Sha256};

use super::{Arch, Compiled, Facts, Program};
use crate::Error;
use crate::error::Version;

/// The first bytes of every file; the number grows when the layout changes.
const MAGIC: &[u8; 16] = b"stepscope-code/1";
const HASH_BYTES: usize = 32;
/// The first bytes of a file that is compressed.
const GZIP: &[u8] = &[0x1f, 0x8b];

/// A folder of compiled programs.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// How much a [`Cache`] holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Usage {
    /// Compiled programs.
    pub files: u64,
    /// Their bytes together.
    pub bytes: u64,
}

/// What names a compiled program: architecture, and hash of all that decides what comes out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    arch: String,
    hash: String,
}

impl Key {
    /// `compiler_bytes` is the size of NVRTC's file, which tells releases of one version apart.
    pub(super) fn of(program: &Program, arch: Arch, compiler: Version, compiler_bytes: u64) -> Key {
        Key::with(
            program,
            arch,
            &[compiler.to_string(), compiler_bytes.to_string()],
        )
    }

    /// The same whichever compiler made it.
    fn of_any_compiler(program: &Program, arch: Arch) -> Key {
        Key::with(program, arch, &[])
    }

    fn with(program: &Program, arch: Arch, compiler: &[String]) -> Key {
        let mut hasher = Sha256::new();
        let mut add = |text: &str| {
            // With the length before it, no two lists of texts give the same bytes.
            hasher.update((text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        add(env!("CARGO_PKG_VERSION"));
        compiler.iter().for_each(|text| add(text));
        add(&program.name);
        add(&program.source);
        for list in [&program.expressions, &program.options.arguments(arch)] {
            add(&list.len().to_string());
            list.iter().for_each(|text| add(text));
        }
        for (name, text) in &program.headers {
            add(name);
            add(text);
        }
        let hash = hasher.finalize();
        Key {
            arch: arch.to_string(),
            hash: hash.iter().map(|byte| format!("{byte:02x}")).collect(),
        }
    }
}

impl Cache {
    /// The cache in `folder`, which is created when something is first put there.
    pub fn in_folder(folder: impl Into<PathBuf>) -> Cache {
        Cache {
            folder: folder.into(),
        }
    }

    /// This user's cache: in `$STEPSCOPE_CACHE`, `$XDG_CACHE_HOME/stepscope` or `~/.cache/stepscope`; none for a user without
    /// a home.
    pub fn for_this_user() -> Option<Cache> {
        super::cache_folder().map(Cache::in_folder)
    }

    /// The folder it lies in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// How much it holds now; nothing if the folder is not there.
    pub fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        let archs = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        for entry in
            archs.flat_map(|arch| fs::read_dir(arch.path()).into_iter().flatten().flatten())
        {
            if entry
                .path()
                .extension()
                .is_some_and(|extension| extension == "code")
            {
                usage.files += 1;
                usage.bytes += entry.metadata().map_or(0, |metadata| metadata.len());
            }
        }
        usage
    }

    /// What was put here for machines without a compiler, by [`Cache::prebuild`].
    pub fn prebuilt(&self, program: &Program, arch: Arch) -> Option<Compiled> {
        self.get(&Key::of_any_compiler(program, arch))
    }

    /// Keeps `compiled`, which `program` gave for `arch`, for machines without a compiler. Its PTX is left out: there is a file
    /// for each architecture. The file is compressed, to a fifth: all of them travel together.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn prebuild(
        &self,
        program: &Program,
        arch: Arch,
        compiled: &Compiled,
    ) -> Result<(), Error> {
        let without_ptx = Compiled {
            ptx: String::new(),
            ..compiled.clone()
        };
        let mut compressed = Vec::new();
        // It reads from memory and writes to memory, and so cannot fail.
        let _ = GzEncoder::new(&encode(&without_ptx)[..], Compression::default())
            .read_to_end(&mut compressed);
        self.write(&Key::of_any_compiler(program, arch), &compressed)
    }

    fn file(&self, key: &Key) -> PathBuf {
        self.folder
            .join(&key.arch)
            .join(format!("{}.code", key.hash))
    }

    /// What was put under `key`, if it is whole. A damaged file is removed.
    pub(super) fn get(&self, key: &Key) -> Option<Compiled> {
        let file = self.file(key);
        let mut bytes = fs::read(&file).ok()?;
        if bytes.starts_with(GZIP) {
            let mut whole = Vec::new();
            // What cannot be read is no whole file, which its hash tells.
            let _ = GzDecoder::new(&bytes[..]).read_to_end(&mut whole);
            bytes = whole;
        }
        let compiled = decode(&bytes);
        if compiled.is_none() {
            let _ = fs::remove_file(&file); // it is written anew anyway
        }
        compiled
    }

    /// Keeps `compiled` under `key`.
    pub(super) fn put(&self, key: &Key, compiled: &Compiled) -> Result<(), Error> {
        self.write(key, &encode(compiled))
    }

    fn write(&self, key: &Key, bytes: &[u8]) -> Result<(), Error> {
        let file = self.file(key);
        let folder = file.parent().unwrap_or(&self.folder);
        create_private(folder)?;
        let mut temporary = tempfile::Builder::new()
            .prefix(".code-")
            .tempfile_in(folder)
            .map_err(|error| Error::file("create a file in", folder, error))?;
        temporary
            .write_all(bytes)
            .map_err(|error| Error::file("write", temporary.path(), error))?;
        temporary
            .persist(&file)
            .map_err(|error| Error::file("create", &file, error.error))?;
        Ok(())
    }
}

/// Creates `folder` for this user alone: what lies there is executed on the device.
fn create_private(folder: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt as _;
    let created = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder);
    created.map_err(|error| Error::file("create", folder, error))
}

/// The cache's folder as the environment `variable`s have it.
pub(super) fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let absolute = |name: &str| {
        variable(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("STEPSCOPE_CACHE")
        .or_else(|| Some(absolute("XDG_CACHE_HOME")?.join("stepscope")))
        .or_else(|| Some(absolute("HOME")?.join(".cache/stepscope")))
}

/// Magic, hash of the rest, three lengths, and the three parts.
fn encode(compiled: &Compiled) -> Vec<u8> {
    // Maps with text keys, numbers and texts always have a JSON form.
    let facts = serde_json::to_vec(&compiled.facts).unwrap_or_default();
    let parts = [facts.as_slice(), compiled.ptx.as_bytes(), &compiled.cubin];
    let mut body = Vec::new();
    for part in parts {
        body.extend((part.len() as u64).to_le_bytes());
    }
    for part in parts {
        body.extend(part);
    }
    let mut bytes = MAGIC.to_vec();
    bytes.extend(Sha256::digest(&body));
    bytes.extend(body);
    bytes
}

fn decode(bytes: &[u8]) -> Option<Compiled> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (hash, body) = rest.split_at_checked(HASH_BYTES)?;
    if Sha256::digest(body).as_slice() != hash {
        return None;
    }
    let (lengths, mut rest) = body.split_at_checked(3 * size_of::<u64>())?;
    let mut parts = lengths.chunks_exact(size_of::<u64>()).map(|length| {
        let length = u64::from_le_bytes(length.try_into().ok()?);
        let (part, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
        rest = behind;
        Some(part)
    });
    let facts: Facts = serde_json::from_slice(parts.next()??).ok()?;
    let ptx = String::from_utf8(parts.next()??.to_vec()).ok()?;
    let cubin = parts.next()??.to_vec();
    Some(Compiled { cubin, ptx, facts })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nvrtc::{KernelReport, Options, Report};

    const VERSION: Version = Version {
        major: 13,
        minor: 0,
    };

    fn compiled() -> Compiled {
        Compiled {
            cubin: vec![0, 1, 2, 255],
            ptx: ".version 9.0\n".to_owned(),
            facts: Facts {
                program: "k.cu".to_owned(),
                arch: "sm_90a".to_owned(),
                compiler: VERSION,
                lowered_names: [("k<1>".to_owned(), "_Z1kILi1EEvv".to_owned())].into(),
                report: Report {
                    kernels: vec![KernelReport::default()],
                    advisories: Vec::new(),
                },
                warnings: Vec::new(),
            },
        }
    }

    fn key(program: &Program) -> Key {
        Key::of(program, Arch::of_device(9, 0), VERSION, 7)
    }

    #[test]
    fn what_was_put_comes_back() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path().join("a/b"));
        let key = key(&Program::new("k.cu", "x"));
        assert_eq!(cache.get(&key), None);
        assert_eq!(cache.usage(), Usage::default());
        cache.put(&key, &compiled()).unwrap();
        assert_eq!(cache.get(&key), Some(compiled()));
        let usage = cache.usage();
        assert_eq!(
            (usage.files, usage.bytes),
            (1, encode(&compiled()).len() as u64)
        );
    }

    #[test]
    fn a_damaged_file_is_removed_wherever_the_damage_is() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::in_folder(folder.path());
        let key = key(&Program::new("k.cu", "x"));
        let whole = encode(&compiled());
        for position in 0..whole.len() {
            let mut changed = whole.clone();
            changed[position] ^= 1;
            assert_eq!(decode(&changed), None, "byte {position}");
            assert_eq!(decode(&whole[..position]), None, "cut at {position}");
        }
        cache.put(&key, &compiled()).unwrap();
        fs::write(cache.file(&key), &whole[..whole.len() / 2]).unwrap();
        assert_eq!(cache.get(&key), None);
        assert!(!cache.file(&key).exists());
    }

    #[test]
    fn everything_that_decides_the_code_is_in_the_key() {
        let base = || Program::new("k.cu", "x").header("h", "y").kernel("k<1>");
        let options = |options| base().options(options);
        let others = [
            Program::new("l.cu", "x").header("h", "y").kernel("k<1>"),
            Program::new("k.cu", "z").header("h", "y").kernel("k<1>"),
            Program::new("k.cu", "x").header("hy", "").kernel("k<1>"),
            Program::new("k.cu", "x").header("h", "y").kernel("k<2>"),
            Program::new("k.cu", "x").header("h", "y"),
            options(Options {
                fast_math: true,
                ..Options::default()
            }),
            options(Options {
                max_registers: Some(64),
                ..Options::default()
            }),
        ];
        for other in &others {
            assert_ne!(key(other), key(&base()), "{other:?}");
        }
        assert_eq!(key(&base()), key(&base()));
        let newer = Version {
            major: 13,
            minor: 1,
        };
        let arch = Arch::of_device(9, 0);
        assert_ne!(Key::of(&base(), arch, newer, 7), key(&base()));
        assert_ne!(Key::of(&base(), arch, VERSION, 8), key(&base()));
        assert_ne!(
            Key::of(&base(), Arch::of_device(8, 0), VERSION, 7),
            key(&base())
        );
    }

    #[test]
    fn the_folder_follows_the_environment() {
        let folder_with = |variables: &[(&str, &str)]| {
            let found = folder(|name| {
                let mut variables = variables.iter();
                variables
                    .find(|(variable, _)| *variable == name)
                    .map(|(_, value)| value.into())
            });
            found.map(|path| path.display().to_string())
        };
        assert_eq!(
            folder_with(&[("HOME", "/h")]).as_deref(),
            Some("/h/.cache/stepscope")
        );
        let xdg = [("HOME", "/h"), ("XDG_CACHE_HOME", "/x")];
        assert_eq!(folder_with(&xdg).as_deref(), Some("/x/stepscope"));
        let ours = [("XDG_CACHE_HOME", "/x"), ("STEPSCOPE_CACHE", "/s")];
        assert_eq!(folder_with(&ours).as_deref(), Some("/s"));
        // The standard says that a relative path there is to be ignored.
        let relative = [("HOME", "/h"), ("XDG_CACHE_HOME", "x")];
        assert_eq!(
            folder_with(&relative).as_deref(),
            Some("/h/.cache/stepscope")
        );
        assert_eq!(folder_with(&[]), None);
    }
}
