//! What a kernel's file says of its launch, in comments that begin with `stepscope:`.
//!
//! ```text
//! // stepscope: kernel = my_gemm<STORAGE, BM>
//! // stepscope: grid = (ceil(N / 64), ceil(M / BM)), block = 256, smem = BM * 128
//! // stepscope: param BM = 64, 128
//! ```
//!
//! A line has one or several of `kernel`, `grid`, `block`, `smem`, `cluster` and `scratch`, or one `param`. A second `kernel` begins a
//! second launch, which runs behind the first and gets the same arguments. `scratch` are bytes of memory whose address all kernels
//! of the file get as one more argument, the last. A `param` is a macro, which has the first of its values where nothing else is said.
//! `role 0 = load` names a role of the events of `timeline.cuh`.

use super::expression::Expression;

/// The mark behind which a line says something.
const MARK: &str = "stepscope:";
/// Values of all parameters together.
const MOST_POINTS: usize = 256;

/// All that a file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Directives {
    /// The launches, in their order.
    pub launches: Vec<LaunchRule>,
    /// Parameters, in their order.
    pub params: Vec<Param>,
    /// Bytes of memory that kernels hand each other results in.
    pub scratch: Option<Said<Expression>>,
    /// What roles of events are called, by their number.
    pub roles: Vec<(u8, String)>,
}

/// One launch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaunchRule {
    /// The kernel, as C++ names it; `STORAGE` and parameters stand for what they are.
    pub kernel: Said<String>,
    /// Blocks in x, y and z.
    pub grid: Said<Vec<Expression>>,
    /// Threads of a block in x, y and z.
    pub block: Said<Vec<Expression>>,
    /// Bytes of dynamic shared memory.
    pub smem: Option<Said<Expression>>,
    /// Blocks of a cluster in x, y and z.
    pub cluster: Option<Said<Vec<Expression>>>,
}

/// A macro with several values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    /// Its name.
    pub name: String,
    /// What it may be; the first where nothing else is said.
    pub values: Vec<u64>,
    /// The line that says so.
    pub line: usize,
}

/// Something and the line, counted from one, that says it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said<T> {
    /// What.
    pub what: T,
    /// Where.
    pub line: usize,
}

/// What is wrong, and with which line; 0 for the file as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Counted from one.
    pub line: usize,
    /// One sentence.
    pub what: String,
}

/// A launch under construction.
#[derive(Debug, Default)]
struct Partial {
    kernel: Option<Said<String>>,
    grid: Option<Said<Vec<Expression>>>,
    block: Option<Said<Vec<Expression>>>,
    smem: Option<Said<Expression>>,
    cluster: Option<Said<Vec<Expression>>>,
}

impl Directives {
    /// Understands the comments of a source.
    ///
    /// # Errors
    /// The first line that cannot be understood, or what is missing.
    pub fn parse(text: &str) -> Result<Directives, Complaint> {
        let mut partials = vec![Partial::default()];
        let mut params: Vec<Param> = Vec::new();
        let mut scratch = None;
        let mut roles = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let number = index + 1;
            let Some(said) = marked(line) else { continue };
            let complain = |what: String| Complaint { line: number, what };
            if let Some(rest) = said.strip_prefix("param ") {
                let param = param(rest, number).map_err(complain)?;
                if params.iter().any(|known| known.name == param.name) {
                    return Err(complain(format!("param {} is there twice", param.name)));
                }
                params.push(param);
                continue;
            }
            if let Some(rest) = said.strip_prefix("role ") {
                roles.push(role(rest).map_err(complain)?);
                continue;
            }
            let pairs = pairs(said).map_err(complain)?;
            let has_kernel = pairs.iter().any(|(key, _)| *key == "kernel");
            if has_kernel && partials.last().is_some_and(|last| last.kernel.is_some()) {
                partials.push(Partial::default());
            }
            let Some(partial) = partials.last_mut() else {
                continue;
            };
            for (key, value) in pairs {
                set(partial, &mut scratch, key, value, number).map_err(complain)?;
            }
        }
        let whole = |what: String| Complaint { line: 0, what };
        let points = params.iter().try_fold(1_usize, |points, param| {
            let points = points.checked_mul(param.values.len())?;
            (points <= MOST_POINTS).then_some(points)
        });
        if points.is_none() {
            return Err(whole(format!(
                "the params have more than {MOST_POINTS} combinations"
            )));
        }
        let launches = partials.into_iter().map(Partial::finish);
        Ok(Directives {
            launches: launches.collect::<Result<_, _>>()?,
            params,
            scratch,
            roles,
        })
    }
}

/// What a source calls the roles of its events, whatever else it says.
pub fn roles(text: &str) -> Vec<(u8, String)> {
    let said = text.lines().filter_map(marked);
    said.filter_map(|said| role(said.strip_prefix("role ")?).ok())
        .collect()
}

impl Partial {
    fn finish(self) -> Result<LaunchRule, Complaint> {
        let Some(kernel) = self.kernel else {
            return Err(Complaint {
                line: 0,
                what: "no line says which kernel to launch: add `// stepscope: kernel = NAME, grid = …, block = …`".to_owned(),
            });
        };
        let missing = |key: &str| Complaint {
            line: kernel.line,
            what: format!(
                "the launch of {} has no {key}: add `// stepscope: {key} = …`",
                kernel.what
            ),
        };
        Ok(LaunchRule {
            grid: self.grid.ok_or_else(|| missing("grid"))?,
            block: self.block.ok_or_else(|| missing("block"))?,
            smem: self.smem,
            cluster: self.cluster,
            kernel,
        })
    }
}

/// What stands behind the mark, if the line is such a comment.
fn marked(line: &str) -> Option<&str> {
    let comment = line.trim().strip_prefix("//")?.trim_start();
    Some(comment.strip_prefix(MARK)?.trim())
}

/// `a = x, b = (y, z)` at commas outside parentheses.
fn pairs(said: &str) -> Result<Vec<(&str, &str)>, String> {
    split(said)?
        .into_iter()
        .map(|part| {
            let pair = part
                .split_once('=')
                .filter(|(key, _)| !key.trim().is_empty());
            let (key, value) =
                pair.ok_or_else(|| format!("{:?} has not the form NAME = VALUE", part.trim()))?;
            let (key, value) = (key.trim(), value.trim());
            match value {
                "" => Err(format!("{key} has no value")),
                _ => Ok((key, value)),
            }
        })
        .collect()
}

/// The parts between commas that lie in no parentheses and in no angle brackets.
fn split(text: &str) -> Result<Vec<&str>, String> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '<' => depth += 1,
            ')' | '>' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
        if depth < 0 {
            return Err(format!("{c} closes nothing in {text:?}"));
        }
    }
    parts.push(&text[start..]);
    Ok(parts)
}

fn set(
    partial: &mut Partial,
    scratch: &mut Option<Said<Expression>>,
    key: &str,
    value: &str,
    line: usize,
) -> Result<(), String> {
    let one = || Expression::parse(value).map_err(|why| format!("{key} = {value}: {why}"));
    match key {
        "kernel" => put(&mut partial.kernel, key, kernel(value)?, line),
        "grid" => put(&mut partial.grid, key, axes(key, value)?, line),
        "block" => put(&mut partial.block, key, axes(key, value)?, line),
        "smem" => put(&mut partial.smem, key, one()?, line),
        "cluster" => put(&mut partial.cluster, key, axes(key, value)?, line),
        "scratch" => put(scratch, key, one()?, line),
        _ => Err(format!(
            "{key} is nothing that a launch has; there are kernel, grid, block, smem, cluster, scratch, param and role"
        )),
    }
}

fn put<T>(place: &mut Option<Said<T>>, key: &str, what: T, line: usize) -> Result<(), String> {
    if let Some(before) = place {
        return Err(format!("{key} was said in line {} already", before.line));
    }
    *place = Some(Said { what, line });
    Ok(())
}

fn kernel(name: &str) -> Result<String, String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || "_:<>, ".contains(c);
    let begins = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    match begins && name.chars().all(is_name) {
        true => Ok(name.to_owned()),
        false => Err(format!("kernel = {name}: that is no kernel's name")),
    }
}

/// One number, or up to three in parentheses. `(M + 1)` is one.
fn axes(key: &str, value: &str) -> Result<Vec<Expression>, String> {
    let inner = value
        .strip_prefix('(')
        .and_then(|rest| rest.strip_suffix(')'));
    // `(a) * (b)` begins and ends with parentheses that do not belong together.
    let parts = inner
        .and_then(|inner| split(inner).ok())
        .filter(|parts| parts.len() > 1);
    let parts = parts.unwrap_or_else(|| vec![value]);
    if parts.len() > 3 {
        return Err(format!("{key} = {value}: at most three axes, x, y and z"));
    }
    let parse =
        |part: &str| Expression::parse(part).map_err(|why| format!("{key} = {value}: {why}"));
    parts.into_iter().map(parse).collect()
}

/// `0 = load`
fn role(text: &str) -> Result<(u8, String), String> {
    let pair = text.split_once('=');
    let pair = pair.and_then(|(number, name)| Some((number.trim().parse().ok()?, name.trim())));
    match pair {
        Some((number @ 0..=127, name)) if !name.is_empty() => Ok((number, name.to_owned())),
        _ => Err(format!(
            "role {text}: it has not the form NUMBER = NAME, the number from 0 to 127"
        )),
    }
}

/// `BM = 64, 128`
fn param(text: &str, line: usize) -> Result<Param, String> {
    let (name, values) = text
        .split_once('=')
        .ok_or_else(|| format!("param {text}: it has not the form NAME = VALUE, VALUE, …"))?;
    let name = name.trim();
    let is_name = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !is_name {
        return Err(format!("param {name}: that is no name"));
    }
    let values = values.split(',').map(|value| {
        let value = value.trim();
        let number: Option<u64> = value.parse().ok();
        number.ok_or_else(|| format!("param {name}: {value:?} is no whole number"))
    });
    Ok(Param {
        name: name.to_owned(),
        values: values.collect::<Result<_, _>>()?,
        line,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_line_or_several_say_a_launch() {
        let one = "// stepscope: grid = ceil(M/128)*ceil(N/128), block = 256, smem = 65536, kernel = my_gemm\n";
        let several = "// My product.\n//stepscope: kernel = my_gemm\n\n  // stepscope: grid = ceil(M/128)*ceil(N/128)\n// stepscope: block = 256, smem = 65536\nint x; // stepscope: not a comment of its own\n";
        for text in [one, several] {
            let directives = Directives::parse(text).unwrap();
            let [launch] = &directives.launches[..] else {
                panic!("{directives:?}")
            };
            assert_eq!(launch.kernel.what, "my_gemm");
            assert_eq!(launch.grid.what.len(), 1);
            assert_eq!(launch.block.what, [Expression::Number(256)]);
            let smem = launch.smem.as_ref().map(|said| &said.what);
            assert_eq!(smem, Some(&Expression::Number(65_536)));
        }
    }

    #[test]
    fn launches_params_and_axes() {
        let text = "// stepscope: param BM = 64, 128\n// stepscope: param STAGES=3\n// stepscope: kernel = a<STORAGE, BM>, grid = (N, ceil(M / BM), 1), block = (32, 4), cluster = (2)\n// stepscope: scratch = M * N * 4\n// stepscope: kernel = b, grid = (M + 1) * (N), block = 64\n";
        let directives = Directives::parse(text).unwrap();
        let names: Vec<_> = directives
            .launches
            .iter()
            .map(|l| l.kernel.what.as_str())
            .collect();
        assert_eq!(names, ["a<STORAGE, BM>", "b"]);
        let axes: Vec<_> = directives
            .launches
            .iter()
            .map(|l| (l.grid.what.len(), l.block.what.len()))
            .collect();
        assert_eq!(axes, [(3, 2), (1, 1)]);
        let params: Vec<_> = directives
            .params
            .iter()
            .map(|p| (p.name.as_str(), p.values.as_slice()))
            .collect();
        assert_eq!(params, [("BM", &[64, 128][..]), ("STAGES", &[3])]);
        assert_eq!(directives.scratch.unwrap().line, 4);
    }

    #[test]
    fn mistakes_are_named_by_their_line() {
        let check = |text: &str, line: usize, expected: &str| {
            let complaint = Directives::parse(text).unwrap_err();
            assert_eq!(
                (complaint.line, complaint.what.as_str()),
                (line, expected),
                "{text}"
            );
        };
        check(
            "int x;",
            0,
            "no line says which kernel to launch: add `// stepscope: kernel = NAME, grid = …, block = …`",
        );
        check(
            "\n// stepscope: kernel = k, grid = 1",
            2,
            "the launch of k has no block: add `// stepscope: block = …`",
        );
        check(
            "// stepscope: kernel = k, grd = 1",
            1,
            "grd is nothing that a launch has; there are kernel, grid, block, smem, cluster, scratch, param and role",
        );
        check(
            "// stepscope: role 200 = x",
            1,
            "role 200 = x: it has not the form NUMBER = NAME, the number from 0 to 127",
        );
        check(
            "// stepscope: grid = 1\n// stepscope: grid = 2",
            2,
            "grid was said in line 1 already",
        );
        check(
            "// stepscope: grid = ceil(M",
            1,
            "grid = ceil(M: ) is missing at the end",
        );
        check(
            "// stepscope: grid = M)",
            1,
            ") closes nothing in \"grid = M)\"",
        );
        check(
            "// stepscope: grid = (1, 2, 3, 4)",
            1,
            "grid = (1, 2, 3, 4): at most three axes, x, y and z",
        );
        check(
            "// stepscope: grid",
            1,
            "\"grid\" has not the form NAME = VALUE",
        );
        check("// stepscope: grid =", 1, "grid has no value");
        check(
            "// stepscope: kernel = 3x",
            1,
            "kernel = 3x: that is no kernel's name",
        );
        check(
            "// stepscope: param BM = 64, big",
            1,
            "param BM: \"big\" is no whole number",
        );
        check(
            "// stepscope: param B M = 64",
            1,
            "param B M: that is no name",
        );
        check(
            "// stepscope: param BM = 1\n// stepscope: param BM = 2",
            2,
            "param BM is there twice",
        );
        let many = "// stepscope: param A = 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17\n".to_owned()
            + "// stepscope: param B = 1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16\n";
        check(&many, 0, "the params have more than 256 combinations");
    }

    proptest! {
        #[test]
        fn no_file_makes_it_panic(lines in prop::collection::vec("(// ?stepscope: ?)?(kernel|grid|block|smem|param |cluster|scratch|x)? ?=? ?[-(),<>=*/a-zM0-9é ]{0,30}", 0..6)) {
            if let Err(complaint) = Directives::parse(&lines.join("\n")) {
                prop_assert!(complaint.line <= lines.len());
                prop_assert!(!complaint.what.contains('\n'));
            }
        }

        #[test]
        fn what_is_written_is_understood(grid in 1_u64..1 << 31, block in 1_u64..1024, smem in 0_u64..200_000, order in Just(vec![0, 1, 2, 3]).prop_shuffle()) {
            let parts = [format!("grid = {grid}"), format!("block = {block}"), format!("smem = {smem}"), "kernel = k".to_owned()];
            let line: Vec<&str> = order.iter().map(|&i| parts[i].as_str()).collect();
            let directives = Directives::parse(&format!("// stepscope: {}", line.join(", "))).unwrap();
            let launch = &directives.launches[0];
            prop_assert_eq!(&launch.grid.what, &[Expression::Number(grid.into())]);
            prop_assert_eq!(&launch.block.what, &[Expression::Number(block.into())]);
            prop_assert_eq!(&launch.smem.as_ref().unwrap().what, &Expression::Number(smem.into()));
        }
    }
}
