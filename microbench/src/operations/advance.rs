//! A position more for each request of a decode batch.

use stepscope_kernels::advance::{self, Tables};
use stepscope_kernels::cuda::Cuda;
use stepscope_kernels::cuda::catalog::{Shape, dimension, option};
use stepscope_kernels::{Error, Kernel};

use super::inputs::scattered_pages;
use super::probe::{OnCuda, Output, Probe, Problem, Value};
use super::{Argument, Kind, Operation, Role};

/// Positions by which requests can be moved on before their lengths must be put back. The loop does that before each sample, which has
/// at most 1024 launches.
const ROOM: usize = 2048;
/// Slots of the pool, which results are held against as floats: up to here each whole number is one.
const MOST_SLOTS: usize = 1 << 24;
/// What stands in the page table where there is no page.
const NO_PAGE: i32 = i32::MAX;

pub(super) static ADVANCE: Operation = Operation {
    name: "advance",
    summary: "a position more for each request of a decode batch: slots, lengths, page tables",
    formula: "with p = kv_len[r]: where p % page_size = 0, page_table[r, p / page_size] = new_pages[r]; then positions[r] = p, slots[r] = page_table[r, p / page_size] * page_size + p % page_size, kv_len[r] = p + 1",
    dimensions: &[
        dimension("requests", 64, "requests of the batch"),
        option(
            "kv_len",
            512,
            "positions that the first request has before; those behind it have 1, 2, … more, up to a page",
        ),
        dimension("page_size", 16, "slots of a page"),
    ],
    arguments: &[
        Argument::new(
            "kv_len",
            Kind::Integers,
            "[requests]",
            Role::InOut,
            "positions of each request",
        ),
        Argument::new(
            "page_table",
            Kind::Integers,
            "[requests, max_pages]",
            Role::InOut,
            "the pages of each request; entries past the last one are no pages",
        ),
        Argument::new(
            "new_pages",
            Kind::Integers,
            "[requests]",
            Role::In,
            "the next page of each request, to be used only where one begins",
        ),
        Argument::new(
            "positions",
            Kind::Integers,
            "[requests]",
            Role::Out,
            "where the new tokens stand",
        ),
        Argument::new(
            "slots",
            Kind::Integers,
            "[requests]",
            Role::Out,
            "where their keys and values go",
        ),
        Argument::count("requests", "requests of the batch"),
        Argument::count("max_pages", "entries of a row of the page table"),
        Argument::count("page_size", "slots of a page"),
    ],
    check: |shape| {
        let [requests, kv_len, page_size] =
            ["requests", "kv_len", "page_size"].map(|name| shape.get(name));
        let pages = requests.saturating_mul((kv_len + page_size).div_ceil(page_size));
        let slots = pages.saturating_mul(4 * page_size);
        match slots <= MOST_SLOTS {
            true => Ok(()),
            false => Err(crate::Error::Unusable(format!(
                "requests={requests},kv_len={kv_len},page_size={page_size}: their pool may have {slots} slots, but at most \
                 {MOST_SLOTS} can be told apart"
            ))),
        }
    },
    cost: |shape| {
        let begin = lengths(shape).filter(|len| len.is_multiple_of(shape.get("page_size")));
        advance::cost(shape.get("requests"), begin.count())
    },
    roundings: None,
    on_cuda: |cuda, shape, _| Ok(Box::new(Advance::new(cuda, shape)?)),
    on_cpu: |cpu, shape, _| Ok(Box::new(Advance::new(cpu, shape)?)),
};

/// Positions of each request before: in every page-sized group of requests one begins a page, as in a batch of many.
fn lengths(shape: &Shape) -> impl Iterator<Item = usize> {
    let (kv_len, page_size) = (shape.get("kv_len"), shape.get("page_size"));
    (0..shape.get("requests")).map(move |request| kv_len + request % page_size)
}

struct Advance<B: Probe> {
    kv_len: B::Indices,
    page_table: B::Indices,
    new_pages: B::Indices,
    positions: B::Indices,
    slots: B::Indices,
    /// Lengths and page table before.
    at_first: [Vec<i32>; 2],
    requests: usize,
    max_pages: usize,
    page_size: usize,
}

impl<B: Probe> Advance<B> {
    fn new(b: &B, shape: &Shape) -> Result<Self, Error> {
        let (requests, page_size) = (shape.get("requests"), shape.get("page_size"));
        let lens: Vec<usize> = lengths(shape).collect();
        let after: Vec<usize> = lens.iter().map(|len| len + 1).collect();
        let pages = scattered_pages(&after, page_size);
        let max_pages = (shape.get("kv_len") + page_size + ROOM).div_ceil(page_size);
        let mut table = vec![NO_PAGE; requests * max_pages];
        // Pages of nobody, where none is to be taken.
        let mut new_pages: Vec<i32> = (0..requests).map(|r| (pages.pages + r) as i32).collect();
        for (request, &len) in lens.iter().enumerate() {
            let row = &mut table[request * max_pages..][..max_pages];
            let own = &pages.table[request * pages.max_pages..][..len / page_size + 1];
            row[..own.len()].copy_from_slice(own);
            if len.is_multiple_of(page_size) {
                new_pages[request] = std::mem::replace(&mut row[len / page_size], NO_PAGE);
            }
        }
        let lens: Vec<i32> = lens.into_iter().map(|len| len as i32).collect();
        Ok(Advance {
            kv_len: b.guarded(&lens)?,
            page_table: b.guarded(&table)?,
            new_pages: b.loaded(&new_pages)?,
            positions: b.no_tokens(requests)?,
            slots: b.no_tokens(requests)?,
            at_first: [lens, table],
            requests,
            max_pages,
            page_size,
        })
    }
}

impl<B: Probe> Problem<B> for Advance<B> {
    fn launch(&mut self, b: &B) -> Result<Kernel, Error> {
        b.advance(Tables {
            kv_len: &mut self.kv_len,
            page_table: &mut self.page_table,
            positions: &mut self.positions,
            slots: &mut self.slots,
            new_pages: &self.new_pages,
            requests: self.requests,
            max_pages: self.max_pages,
            page_size: self.page_size,
        })
    }

    fn restore(&mut self, b: &B) -> Result<(), Error> {
        b.write_indices(&mut self.kv_len, &self.at_first[0])
    }

    fn reset(&mut self, b: &B) -> Result<(), Error> {
        let [lens, table] = &self.at_first;
        b.guard(&mut self.kv_len, lens)?;
        b.guard(&mut self.page_table, table)?;
        let nothing = vec![-1; self.requests];
        b.guard(&mut self.positions, &nothing)?;
        b.guard(&mut self.slots, &nothing)
    }

    fn outputs(&self, b: &B) -> Result<Vec<Output>, Error> {
        let requests = self.requests;
        let table = b.tokens("page_table", requests * self.max_pages, &self.page_table)?;
        Ok(vec![
            b.tokens("kv_len", requests, &self.kv_len)?,
            Output {
                shape: vec![requests, self.max_pages],
                ..table
            },
            b.tokens("positions", requests, &self.positions)?,
            b.tokens("slots", requests, &self.slots)?,
        ])
    }
}

impl OnCuda for Advance<Cuda> {
    fn values(&self) -> Result<Vec<Value>, Error> {
        Ok(vec![
            Value::indices(&self.kv_len),
            Value::indices(&self.page_table),
            Value::indices(&self.new_pages),
            Value::indices(&self.positions),
            Value::indices(&self.slots),
            Value::count(self.requests),
            Value::count(self.max_pages),
            Value::count(self.page_size),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::emulated;

    /// However often it is launched in between, lengths are what they were once they are put back.
    #[test]
    fn lengths_are_put_back() {
        let Some((cuda, _turn)) = emulated() else {
            return;
        };
        let shape = ADVANCE.shape("requests=5,kv_len=6,page_size=4").unwrap();
        let mut problem = Advance::new(&cuda, &shape).unwrap();
        let lens = |problem: &Advance<Cuda>| problem.outputs(&cuda).unwrap().remove(0).values;
        for _ in 0..3 {
            problem.launch(&cuda).unwrap();
        }
        assert_eq!(lens(&problem), [9.0, 10.0, 11.0, 12.0, 9.0]);
        problem.restore(&cuda).unwrap();
        assert_eq!(lens(&problem), [6.0, 7.0, 8.0, 9.0, 6.0]);
        problem.launch(&cuda).unwrap();
        assert_eq!(lens(&problem), [7.0, 8.0, 9.0, 10.0, 7.0]);
    }

    #[test]
    fn a_row_of_the_table_has_room_for_the_launches_of_a_sample() {
        for shape in ["", "kv_len=0", "kv_len=17,page_size=5", "page_size=1"] {
            let shape = ADVANCE.shape(shape).unwrap();
            let problem = Advance::new(&stepscope_kernels::Cpu::new(None).unwrap(), &shape);
            let problem = problem.unwrap();
            let longest = lengths(&shape).max().unwrap();
            assert!((longest + ROOM - 1) / shape.get("page_size") < problem.max_pages);
        }
    }

    #[test]
    fn one_request_of_each_page_begins_one() {
        let shape = ADVANCE.shape("").unwrap();
        // 5 numbers of 64 requests, and 4 new pages.
        assert_eq!((ADVANCE.cost)(&shape).bytes(), 4 * (5 * 64 + 4));
    }
}
