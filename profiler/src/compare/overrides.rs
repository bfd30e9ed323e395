//! `--set FILE:key=value`: what a person knows of a file and the file does not say.

use std::path::Path;
use std::str::FromStr;

use super::Source;
use crate::results::{self, Length, Load, ResultRow};

const KEYS: &str = "model, gpu, version, dtype, backend, tp, pp, batch, concurrency, requests, input-len, output-len";

/// One `FILE:key=value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    file: String,
    key: String,
    value: String,
}

impl FromStr for Override {
    type Err = String;

    fn from_str(text: &str) -> Result<Override, String> {
        let wrong = || format!("{text:?} is no FILE:key=value; the keys are {KEYS}");
        // A value may hold both signs, a file's name the colon of a drive.
        let (before, value) = text.split_once('=').ok_or_else(wrong)?;
        let (file, key) = before.rsplit_once(':').ok_or_else(wrong)?;
        if !KEYS.split(", ").any(|known| known == key) || file.is_empty() || value.is_empty() {
            return Err(wrong());
        }
        let new = Override {
            file: file.to_owned(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        // Says at once whether the value is one.
        new.apply_to(&mut ResultRow::new(results::Framework::Stepscope, ""))?;
        Ok(new)
    }
}

impl Override {
    /// Sets the value in every row of the file that it names, by its path as given or by its name alone.
    ///
    /// # Errors
    /// When no source has that name, or when the file itself says another batch, length or number.
    pub fn apply(&self, sources: &mut [Source]) -> Result<(), String> {
        let mut is_found = false;
        for source in sources {
            let name = Path::new(&source.name)
                .file_name()
                .and_then(|name| name.to_str());
            if source.name != self.file && name != Some(&self.file) {
                continue;
            }
            is_found = true;
            for row in &mut source.import.rows {
                self.apply_to(row).map_err(|reason| {
                    format!("--set {}:{}={}: {reason}", self.file, self.key, self.value)
                })?;
                results::complete(row);
            }
        }
        if is_found {
            Ok(())
        } else {
            Err(format!(
                "--set {}: no file of that name was given",
                self.file
            ))
        }
    }

    /// Sets `key` in all `rows`, as `--batch 8` and the like of a command with one input do.
    ///
    /// # Errors
    /// When a row says another value itself, or the value is none.
    pub fn apply_to_rows(key: &str, value: &str, rows: &mut [ResultRow]) -> Result<(), String> {
        let new = Override {
            file: String::new(),
            key: key.to_owned(),
            value: value.to_owned(),
        };
        for row in rows {
            new.apply_to(row)
                .map_err(|reason| format!("--{key} {value}: {reason}"))?;
            results::complete(row);
            total_contradiction(row)
                .map_or(Ok(()), |reason| Err(format!("--{key} {value}: {reason}")))?;
        }
        Ok(())
    }

    fn apply_to(&self, row: &mut ResultRow) -> Result<(), String> {
        let text = || Some(self.value.clone());
        match self.key.as_str() {
            "model" => row.model = text(),
            "gpu" => row.gpu = text(),
            "version" => row.version = text(),
            "dtype" => row.dtype = text(),
            "backend" => row.backend = text(),
            "tp" => row.tp = Some(self.number()?),
            "pp" => row.pp = Some(self.number()?),
            "requests" => {
                let requests = u64::from(self.number()?);
                if row.requests.is_some_and(|own| own != requests) {
                    return Err(self.contradiction());
                }
                row.requests = Some(requests);
            }
            "batch" => {
                let load = Load::StaticBatch(self.number()?.into());
                if row.load != Load::Unknown && row.load != load {
                    return Err(self.contradiction());
                }
                row.load = load;
            }
            "concurrency" => {
                let limit = Some(f64::from(self.number()?));
                row.load = match row.load {
                    Load::Unknown => Load::Concurrency { limit, mean: None },
                    Load::Concurrency { limit: own, mean } if own.is_none() || own == limit => {
                        Load::Concurrency { limit, mean }
                    }
                    _ => return Err(self.contradiction()),
                };
            }
            "input-len" => self.length(&mut row.input_len)?,
            "output-len" => self.length(&mut row.output_len)?,
            other => return Err(format!("{other:?} is none of {KEYS}")),
        }
        Ok(())
    }

    fn length(&self, length: &mut Option<Length>) -> Result<(), String> {
        let tokens = f64::from(self.number()?);
        if length.is_some_and(|own| own.realised && (own.tokens - tokens).abs() > 0.01 * tokens) {
            return Err(self.contradiction());
        }
        *length = Some(Length {
            tokens,
            realised: true,
        });
        Ok(())
    }

    fn number(&self) -> Result<u32, String> {
        match self.value.parse() {
            Ok(0) | Err(_) => Err(format!("{} must be a whole number from 1", self.key)),
            Ok(number) => Ok(number),
        }
    }

    fn contradiction(&self) -> String {
        "the file itself says another value".to_owned()
    }
}

/// Lengths that make another number of tokens than the one that the file's own rate is of.
fn total_contradiction(row: &ResultRow) -> Option<String> {
    let is_own = !row.derived.contains(&"rates.total_tokens_per_s");
    let counted = row.rates.total_tokens_per_s.filter(|_| is_own)? * row.duration_s?;
    let requests = row.requests? as f64;
    let (input, output) = (row.input_len?.tokens, row.output_len?.tokens);
    let made = requests * (input + output);
    ((made - counted).abs() > 0.01 * counted).then(|| {
        format!(
            "{requests} requests of {input} and {output} tokens make {made} tokens, and the file counted {counted:.0}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<[&str; 3], &str>) {
        match (text.parse::<Override>(), expected) {
            (Ok(parsed), Ok(expected)) => {
                assert_eq!([parsed.file, parsed.key, parsed.value], expected)
            }
            (Err(error), Err(expected)) => assert!(error.contains(expected), "{error}"),
            (parsed, expected) => panic!("{parsed:?} instead of {expected:?}"),
        }
    }

    #[test]
    fn rows_get_what_they_do_not_say() {
        let mut rows = [ResultRow::new(results::Framework::Vllm, "bench latency")];
        Override::apply_to_rows("batch", "8", &mut rows).unwrap();
        assert_eq!(rows[0].load, Load::StaticBatch(8));
        assert_eq!(
            Override::apply_to_rows("batch", "4", &mut rows).unwrap_err(),
            "--batch 4: the file itself says another value"
        );
    }

    #[test]
    fn a_file_a_key_and_a_value() {
        check(
            "a.json:gpu=NVIDIA H100: 80GB",
            Ok(["a.json", "gpu", "NVIDIA H100: 80GB"]),
        );
        check("C:\\a.json:tp=8", Ok(["C:\\a.json", "tp", "8"]));
        check("a.json:model=a=b", Ok(["a.json", "model", "a=b"]));
        check("a.json:tp=many", Err("tp must be a whole number from 1"));
        check("a.json:tp=0", Err("tp must be a whole number from 1"));
        check("a.json:speed=1", Err("the keys are model, gpu"));
        check("gpu=H100", Err("is no FILE:key=value"));
        check("a.json:gpu=", Err("is no FILE:key=value"));
    }
}
