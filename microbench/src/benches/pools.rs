//! Groups `token_pool` and `kv_alloc`: what a batch costs the host before any kernel runs.

use stepscope_engine::pool::{KvAllocator, TokenPool};

use super::suite::{Case, Rate, Suite, wall};
use crate::Error;

const PAGE_SIZE: usize = 16;

fn case(group: &'static str, function: &str, requests: usize, rate: Rate) -> Case {
    Case {
        group,
        function: function.to_owned(),
        shape: format!("{requests} requests"),
        operation: group,
        dtype: "i32",
        rate,
        bound: None,
    }
}

fn engine(error: stepscope_engine::Error) -> Error {
    Error::Unusable(error.to_string())
}

pub(super) fn run(suite: &mut Suite) {
    for requests in [1, 64, 256] {
        let of = |function| {
            case(
                "token_pool",
                function,
                requests,
                Rate::Requests(requests as u64),
            )
        };
        let mut pool = None;
        suite.host(&of("take and release rows"), &mut |n| {
            let pool = match &mut pool {
                Some(pool) => pool,
                none => none.insert(TokenPool::new(requests, 4096).map_err(engine)?),
            };
            let time = wall(n, || {
                for row in std::hint::black_box(pool.take(requests).map_err(engine)?) {
                    pool.release(row);
                }
                Ok(())
            });
            match pool.free_rows() == requests {
                true => time,
                false => Err(Error::Wrong("rows were lost".to_owned())),
            }
        });

        // As `decode` does it: the next slot of each request is written to its row.
        let mut pool = None;
        suite.host(&of("write a slot per request"), &mut |n| {
            let (pool, rows) = match &mut pool {
                Some(known) => known,
                none => {
                    let mut pool = TokenPool::new(requests, 4096).map_err(engine)?;
                    let rows = pool.take(requests).map_err(engine)?;
                    none.insert((pool, rows))
                }
            };
            let mut position = 0;
            wall(n, || {
                position = (position + 1) % 4096;
                for (request, row) in rows.iter().enumerate() {
                    pool.row_mut(row)[position] = request as i32;
                }
                std::hint::black_box(&pool);
                Ok(())
            })
        });
    }
    for requests in [1, 64, 256] {
        let pages = requests * 1024 / PAGE_SIZE;
        let mut pool = None;
        let prompts = case(
            "kv_alloc",
            "prompts of 1024",
            requests,
            Rate::Requests(requests as u64),
        );
        suite.host(&prompts, &mut |n| {
            let (pool, taken) = allocator(&mut pool, pages)?;
            wall(n, || {
                pool.take(pages, taken).map_err(engine)?;
                std::hint::black_box(&taken);
                pool.clear();
                taken.clear();
                Ok(())
            })
        });
        let mut pool = None;
        let growing = case(
            "kv_alloc",
            "a page each",
            requests,
            Rate::Requests(requests as u64),
        );
        suite.host(&growing, &mut |n| {
            let (pool, taken) = allocator(&mut pool, requests)?;
            wall(n, || {
                pool.take(requests, taken).map_err(engine)?;
                pool.release(std::hint::black_box(&mut *taken).drain(..));
                Ok(())
            })
        });
    }
}

/// The allocator of a benchmark, made when it is first needed.
fn allocator(
    known: &mut Option<(KvAllocator, Vec<u32>)>,
    pages: usize,
) -> Result<(&mut KvAllocator, &mut Vec<u32>), Error> {
    let (pool, taken) = match known {
        Some(known) => known,
        none => {
            let pool = KvAllocator::new(pages, PAGE_SIZE).map_err(engine)?;
            none.insert((pool, Vec::with_capacity(pages)))
        }
    };
    Ok((pool, taken))
}
