//! The files of a profile, beside criterion's.

use std::fs;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use stepscope_flamegraphs::{SvgOptions, svg};

use crate::Error;

pub(super) fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Unusable(format!("cannot write {}: {error}", path.display()))
}

/// Writes a file by what `content` puts into it, and says where it is.
pub(super) fn create(
    folder: &Path,
    name: &str,
    content: impl FnOnce(&mut BufWriter<fs::File>) -> Result<(), String>,
) -> Result<PathBuf, Error> {
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    let path = folder.join(name);
    let mut file = BufWriter::new(fs::File::create(&path).map_err(|error| failed(&path, &error))?);
    content(&mut file).map_err(|error| failed(&path, &error))?;
    file.flush().map_err(|error| failed(&path, &error))?;
    Ok(path)
}

/// Writes folded stacks and their picture.
pub(super) fn flame_graph(
    folder: &Path,
    stacks: &[String],
    options: &SvgOptions,
) -> Result<Vec<PathBuf>, Error> {
    let picture = svg(stacks, options).map_err(|error| Error::Unusable(error.to_string()))?;
    let text = |text: String| {
        move |file: &mut BufWriter<fs::File>| {
            let written = file.write_all(text.as_bytes());
            written.map_err(|error| error.to_string())
        }
    };
    Ok(vec![
        create(folder, "flamegraph.svg", text(picture))?,
        create(folder, "flamegraph.folded", text(stacks.join("\n") + "\n"))?,
    ])
}
