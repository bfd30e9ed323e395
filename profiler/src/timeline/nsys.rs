//! SQLite exports of Nsight Systems (`nsys export --type sqlite`).
//!
//! Tables exist only where something was recorded, and their columns differ between versions: both are looked up before they
//! are read. Times are in nanoseconds. Texts of most tables are ids into `StringIds`. A `globalTid` holds the process in its
//! bits from 24 on and the thread below.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};

use super::events::{
    Activity, ActivityKind, Annotation, Call, CallKind, Device, Format, NameId, Place, Trace,
};
use crate::Error;

/// NVTX ranges by push and pop, and by start and end (`NvtxPushPopRange`, `NvtxStartEndRange`).
const RANGES: [i64; 2] = [59, 60];
/// The recorder's messages from this severity on are worth saying (2 is a warning).
const WARNING: i64 = 2;
/// As many of them as are said.
const MOST_DIAGNOSTICS: usize = 5;

pub(super) fn read(path: &Path) -> Result<Trace, Error> {
    let name = path.display().to_string();
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let open = Connection::open_with_flags(path, flags).and_then(|connection| {
        // A file may be made to lie about its own tables; nothing in it is executed.
        connection.pragma_update(None, "trusted_schema", false)?;
        Ok(connection)
    });
    let connection = open.map_err(|e| unreadable(&name, &e))?;
    let tables = tables(&connection).map_err(|e| unreadable(&name, &e))?;
    if !tables.contains("StringIds")
        && !tables
            .iter()
            .any(|table| table.starts_with("CUPTI_ACTIVITY_KIND_"))
    {
        return Err(Error::content(format!(
            "{name} is a SQLite database, but no export of Nsight Systems: it has none of the tables StringIds and \
             CUPTI_ACTIVITY_KIND_…; make one with nsys export --type sqlite"
        )));
    }
    let mut reader = Reader {
        connection: &connection,
        tables,
        trace: Trace::new(&name, Format::Nsys),
        strings: HashMap::new(),
        threads: HashMap::new(),
    };
    // What one table cannot give, the others may; threads and strings come before what needs them.
    let outcomes = [
        reader.strings(),
        reader.devices(),
        reader.kernels(),
        reader.memory(),
        reader.graphs(),
        reader.calls(),
        reader.annotations(),
        reader.diagnostics(),
    ];
    if let Some(error) = outcomes.into_iter().find_map(Result::err) {
        reader.trace.damage.broken_off = Some(error.to_string());
    }
    let mut trace = reader.trace;
    forget_processes(&mut trace);
    if trace.damage.broken_off.is_some() && trace.activities.is_empty() && trace.calls.is_empty() {
        let why = trace.damage.broken_off.take().unwrap_or_default();
        return Err(Error::content(format!(
            "{name} cannot be read as an export of Nsight Systems: {why}"
        )));
    }
    trace.sort();
    Ok(trace)
}

fn unreadable(name: &str, error: &rusqlite::Error) -> Error {
    Error::content(format!(
        "{name} cannot be read as a SQLite database: {error}"
    ))
}

fn tables(connection: &Connection) -> rusqlite::Result<HashSet<String>> {
    let mut statement =
        connection.prepare("SELECT name FROM sqlite_master WHERE type = 'table'")?;
    let names = statement.query_map([], |row| row.get(0))?;
    names.collect()
}

struct Reader<'a> {
    connection: &'a Connection,
    tables: HashSet<String>,
    trace: Trace,
    strings: HashMap<i64, String>,
    /// Threads as written, to our numbers.
    threads: HashMap<i64, u32>,
}

/// A row as a list of whole numbers and texts, in the order in which they were asked for.
struct Fields<'a, 'b>(&'a Row<'b>);

impl Fields<'_, '_> {
    fn number(&self, index: usize) -> Option<i64> {
        match self.0.get_ref(index).ok()? {
            ValueRef::Integer(n) => Some(n),
            ValueRef::Real(x) if x.is_finite() => Some(x as i64),
            _ => None,
        }
    }

    fn text(&self, index: usize) -> Option<String> {
        match self.0.get_ref(index).ok()? {
            ValueRef::Text(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            _ => None,
        }
    }
}

impl Reader<'_> {
    /// Calls `each` with the wanted columns of every row; columns that the table lacks are NULL, and a table that is not there
    /// has no rows.
    fn rows(
        &mut self,
        table: &str,
        columns: &[&str],
        mut each: impl FnMut(&mut Trace, &HashMap<i64, String>, Fields),
    ) -> rusqlite::Result<()> {
        if !self.tables.contains(table) {
            return Ok(());
        }
        let mut statement = self
            .connection
            .prepare(&format!("PRAGMA table_info(\"{table}\")"))?;
        let present: HashSet<String> = statement
            .query_map([], |row| row.get::<_, String>(1))?
            .collect::<rusqlite::Result<_>>()?;
        let wanted: Vec<String> = columns
            .iter()
            .map(|&column| match present.contains(column) {
                true => format!("\"{column}\""),
                false => "NULL".to_owned(),
            })
            .collect();
        let mut statement = self
            .connection
            .prepare(&format!("SELECT {} FROM \"{table}\"", wanted.join(", ")))?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            each(&mut self.trace, &self.strings, Fields(row));
        }
        Ok(())
    }

    fn strings(&mut self) -> rusqlite::Result<()> {
        let mut strings = HashMap::new();
        self.rows("StringIds", &["id", "value"], |_, _, row| {
            if let (Some(id), Some(value)) = (row.number(0), row.text(1)) {
                strings.insert(id, value);
            }
        })?;
        self.strings = strings;
        Ok(())
    }

    fn devices(&mut self) -> rusqlite::Result<()> {
        self.rows(
            "TARGET_INFO_GPU",
            &["id", "name", "smCount", "totalMemory"],
            |trace, _, row| {
                let unsigned = |index| row.number(index).and_then(|n| u64::try_from(n).ok());
                if let Some(id) = row.number(0).and_then(|id| u32::try_from(id).ok()) {
                    trace.devices.push(Device {
                        id,
                        name: row.text(1).unwrap_or_default(),
                        multiprocessors: unsigned(2),
                        memory_bytes: unsigned(3),
                    });
                }
            },
        )
    }

    fn kernels(&mut self) -> rusqlite::Result<()> {
        let columns = [
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "demangledName",
            "shortName",
        ];
        self.rows(
            "CUPTI_ACTIVITY_KIND_KERNEL",
            &columns,
            |trace, strings, row| {
                let text = [6, 7]
                    .iter()
                    .find_map(|&index| strings.get(&row.number(index)?));
                let Some(text) = text else {
                    trace.damage.malformed += 1;
                    return;
                };
                let name = trace.names.intern(text);
                push_activity(trace, &row, name, ActivityKind::Kernel);
            },
        )
    }

    fn memory(&mut self) -> rusqlite::Result<()> {
        let columns = [
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
            "copyKind",
        ];
        self.rows("CUPTI_ACTIVITY_KIND_MEMCPY", &columns, |trace, _, row| {
            // CUpti_ActivityMemcpyKind.
            let name = match row.number(6) {
                Some(1) => "Memcpy HtoD",
                Some(2) => "Memcpy DtoH",
                Some(8) => "Memcpy DtoD",
                Some(10) => "Memcpy PtoP",
                _ => "Memcpy",
            };
            let name = trace.names.intern(name);
            push_activity(trace, &row, name, ActivityKind::Copy);
        })?;
        self.rows(
            "CUPTI_ACTIVITY_KIND_MEMSET",
            &columns[..6],
            |trace, _, row| {
                let name = trace.names.intern("Memset");
                push_activity(trace, &row, name, ActivityKind::Set);
            },
        )
    }

    fn graphs(&mut self) -> rusqlite::Result<()> {
        let columns = [
            "start",
            "end",
            "deviceId",
            "streamId",
            "correlationId",
            "globalPid",
        ];
        self.rows(
            "CUPTI_ACTIVITY_KIND_GRAPH_TRACE",
            &columns,
            |trace, _, row| {
                let name = trace.names.intern("CUDA graph");
                push_activity(trace, &row, name, ActivityKind::Graph);
            },
        )
    }

    fn calls(&mut self) -> rusqlite::Result<()> {
        let mut threads: HashMap<i64, u32> = HashMap::new();
        let columns = ["start", "end", "globalTid", "correlationId", "nameId"];
        let outcome = self.rows(
            "CUPTI_ACTIVITY_KIND_RUNTIME",
            &columns,
            |trace, strings, row| {
                let Some(text) = row.number(4).and_then(|id| strings.get(&id)) else {
                    trace.damage.malformed += 1;
                    return;
                };
                let Some(kind) = CallKind::of(text) else {
                    return;
                };
                let Some((start_ns, duration_ns)) = span(trace, &row) else {
                    return;
                };
                let global = row.number(2).unwrap_or(0);
                let call = Call {
                    start_ns,
                    duration_ns,
                    correlation: correlation(row.number(3), global),
                    thread: thread(&mut threads, global),
                    name: trace.names.intern(text),
                    kind,
                };
                trace.calls.push(call);
            },
        );
        self.threads = threads;
        outcome
    }

    fn annotations(&mut self) -> rusqlite::Result<()> {
        let mut threads = std::mem::take(&mut self.threads);
        let columns = ["start", "end", "globalTid", "eventType", "text", "textId"];
        self.rows("NVTX_EVENTS", &columns, |trace, strings, row| {
            if !row.number(3).is_some_and(|kind| RANGES.contains(&kind)) || row.number(1).is_none()
            {
                return;
            }
            let by_id = || row.number(5).and_then(|id| strings.get(&id).cloned());
            let Some(text) = row.text(4).or_else(by_id) else {
                return;
            };
            let Some((start_ns, duration_ns)) = span(trace, &row) else {
                return;
            };
            let annotation = Annotation {
                start_ns,
                duration_ns,
                name: trace.names.intern(&text),
                place: Place::Host(thread(&mut threads, row.number(2).unwrap_or(0))),
                batch: None,
            };
            trace.annotations.push(annotation);
        })
    }

    fn diagnostics(&mut self) -> rusqlite::Result<()> {
        self.rows(
            "DIAGNOSTIC_EVENT",
            &["severity", "text"],
            |trace, _, row| {
                let is_grave = row.number(0).is_some_and(|severity| severity >= WARNING);
                if is_grave && trace.damage.diagnostics.len() < MOST_DIAGNOSTICS {
                    let text = row.text(1).unwrap_or_default();
                    trace
                        .damage
                        .diagnostics
                        .extend(text.lines().next().map(str::to_owned));
                }
            },
        )
    }
}

fn thread(threads: &mut HashMap<i64, u32>, global: i64) -> u32 {
    let next = threads.len() as u32;
    *threads.entry(global).or_insert(next)
}

/// A correlation id is a process's own: the process goes into the upper half.
fn correlation(id: Option<i64>, global: i64) -> u64 {
    let id = id.and_then(|id| u32::try_from(id).ok()).unwrap_or(0);
    let process = (global >> 24) & 0xff_ffff;
    match id {
        0 => 0,
        id => (process as u64) << 32 | u64::from(id),
    }
}

/// Where kernels do not say of which process they are, and calls are of one, the process is left out of both.
fn forget_processes(trace: &mut Trace) {
    let without_process = trace.activities.iter().all(|a| a.correlation >> 32 == 0);
    let mut processes = trace
        .calls
        .iter()
        .map(|call| call.correlation)
        .filter(|&id| id != 0);
    let first = processes.next();
    if without_process && processes.all(|id| Some(id >> 32) == first.map(|id| id >> 32)) {
        for call in &mut trace.calls {
            call.correlation &= u64::from(u32::MAX);
        }
    }
}

/// Start and duration of a row whose first two columns are start and end.
fn span(trace: &mut Trace, row: &Fields) -> Option<(i64, u64)> {
    let (start, end) = (row.number(0), row.number(1));
    let duration = start
        .zip(end)
        .map(|(start, end)| end.saturating_sub(start) as f64);
    let (_, duration_ns) = trace
        .damage
        .span(start.map(|start| start as f64), duration)?;
    // Whole nanoseconds, which a double could not hold.
    Some((start?, duration_ns))
}

/// Start, end, device, stream, correlation and process are the first six columns.
fn push_activity(trace: &mut Trace, row: &Fields, name: NameId, kind: ActivityKind) {
    let Some((start_ns, duration_ns)) = span(trace, row) else {
        return;
    };
    let small = |index| row.number(index).and_then(|n| u32::try_from(n).ok());
    trace.damage.zero_duration += u64::from(duration_ns == 0);
    trace.activities.push(Activity {
        start_ns,
        duration_ns,
        correlation: correlation(row.number(4), row.number(5).unwrap_or(0)),
        name,
        stream: small(3).unwrap_or(u32::MAX),
        device: small(2).unwrap_or(0),
        kind,
    });
}
