//! Copies: host to device and back, from pinned and from pageable memory, and to another device.

use std::time::Instant;

use stepscope_device::driver::{Context as DeviceContext, DeviceBuffer, PinnedBuffer};
use stepscope_kernels::Backend as _;
use stepscope_kernels::cuda::Cuda;
use stepscope_profiler::device_sheet::{Group, RowTimer, Unit};

use super::context::{Claims, Context, Probe, Values};
use crate::{Error, L2, Subject, Work};

fn probe(name: &str, title: &str, claim: &str, timer: RowTimer) -> Probe {
    Probe {
        group: Group::Transfer,
        name: name.to_owned(),
        title: title.to_owned(),
        claim: claim.to_owned(),
        unit: Unit::BytesPerSecond,
        timer,
        at: None,
    }
}

/// What word `index` is before a copy; `salt` tells copies apart.
fn word(index: usize, salt: u32) -> u32 {
    (index as u32).wrapping_mul(0x9E37_79B1) ^ salt
}

fn check(words: &[u32], salt: u32) -> Result<(), Error> {
    match words
        .iter()
        .enumerate()
        .find(|(index, found)| **found != word(*index, salt))
    {
        None => Ok(()),
        Some((index, found)) => Err(Error::Wrong(format!(
            "word {index} came over as {found:#x}, not {:#x}",
            word(index, salt)
        ))),
    }
}

fn words(count: usize, salt: u32) -> Vec<u32> {
    (0..count).map(|index| word(index, salt)).collect()
}

/// A copy from pinned memory.
struct Upload<'a> {
    cuda: &'a Cuda,
    from: PinnedBuffer<u32>,
    to: DeviceBuffer<u32>,
}

impl Subject for Upload<'_> {
    fn launch(&mut self, _copy: usize) -> Result<(), Error> {
        let len = self.from.len();
        Ok(self.to.upload(self.cuda.stream(), 0, &self.from, len)?)
    }

    fn check(&mut self) -> Result<(), Error> {
        let mut found = vec![0; self.to.len()];
        self.to.read(self.cuda.stream(), 0, &mut found)?;
        check(&found, 1)
    }

    fn work(&self) -> Work {
        Work::default()
    }
}

/// A copy to pinned memory.
struct Download<'a> {
    cuda: &'a Cuda,
    from: DeviceBuffer<u32>,
    to: PinnedBuffer<u32>,
}

impl Subject for Download<'_> {
    fn launch(&mut self, _copy: usize) -> Result<(), Error> {
        let len = self.from.len();
        Ok(self
            .from
            .download(self.cuda.stream(), 0, &mut self.to, len)?)
    }

    fn check(&mut self) -> Result<(), Error> {
        check(self.to.host()?, 2)
    }

    fn work(&self) -> Work {
        Work::default()
    }
}

/// A copy from another device.
struct FromPeer<'a> {
    cuda: &'a Cuda,
    from: DeviceBuffer<u32>,
    to: DeviceBuffer<u32>,
}

impl Subject for FromPeer<'_> {
    fn launch(&mut self, _copy: usize) -> Result<(), Error> {
        let all = 0..self.from.len();
        Ok(self.to.copy_from(self.cuda.stream(), 0, &self.from, all)?)
    }

    fn check(&mut self) -> Result<(), Error> {
        let mut found = vec![0; self.to.len()];
        self.to.read(self.cuda.stream(), 0, &mut found)?;
        check(&found, 3)
    }

    fn work(&self) -> Work {
        Work::default()
    }
}

/// Values of copies that the host waits for.
fn by_host(
    context: &Context<'_>,
    bytes: usize,
    mut copy: impl FnMut() -> Result<(), Error>,
) -> Result<Values, Error> {
    let mut values = Vec::new();
    for _ in 0..context.repetitions() {
        let begin = Instant::now();
        copy()?;
        values.push(bytes as f64 / begin.elapsed().as_secs_f64());
    }
    Ok(if context.is_emulated() {
        Values::default()
    } else {
        Values::of(values)
    })
}

pub(super) fn run(context: &mut Context<'_>) {
    let count = context.sized(16 << 20, 4 << 10); // words
    let bytes = 4 * count;
    let h2d = probe(
        "h2d_pinned",
        "host to device, pinned",
        "64 MiB from pinned memory, in the stream",
        RowTimer::Event,
    );
    context.probe(&h2d, &Claims::none(), |context| {
        let cuda = context.cuda();
        let mut from = PinnedBuffer::new(cuda.context(), "what is copied", count)?;
        from.host_mut()?.copy_from_slice(&words(count, 1));
        let to = DeviceBuffer::new(cuda.context(), "a copy", count)?;
        context.rate(&mut Upload { cuda, from, to }, L2::Warm, bytes as f64)
    });
    let d2h = probe(
        "d2h_pinned",
        "device to host, pinned",
        "64 MiB to pinned memory, in the stream",
        RowTimer::Event,
    );
    context.probe(&d2h, &Claims::none(), |context| {
        let cuda = context.cuda();
        let mut from = DeviceBuffer::new(cuda.context(), "what is copied", count)?;
        from.write(cuda.stream(), 0, &words(count, 2))?;
        let to = PinnedBuffer::new(cuda.context(), "a copy", count)?;
        context.rate(&mut Download { cuda, from, to }, L2::Warm, bytes as f64)
    });
    let h2d = probe(
        "h2d_pageable",
        "host to device, pageable",
        "64 MiB from memory of the process, which the driver copies through pinned memory of its own; waited for",
        RowTimer::Wall,
    );
    context.probe(&h2d, &Claims::none(), |context| {
        let cuda = context.cuda();
        let from = words(count, 1);
        let mut to = DeviceBuffer::new(cuda.context(), "a copy", count)?;
        let values = by_host(context, bytes, || Ok(to.write(cuda.stream(), 0, &from)?))?;
        let mut found = vec![0; count];
        to.read(cuda.stream(), 0, &mut found)?;
        check(&found, 1)?;
        Ok(values)
    });
    let d2h = probe(
        "d2h_pageable",
        "device to host, pageable",
        "64 MiB to memory of the process; waited for",
        RowTimer::Wall,
    );
    context.probe(&d2h, &Claims::none(), |context| {
        let cuda = context.cuda();
        let mut from = DeviceBuffer::new(cuda.context(), "what is copied", count)?;
        from.write(cuda.stream(), 0, &words(count, 2))?;
        let mut found = vec![0; count];
        let values = by_host(context, bytes, || {
            Ok(from.read(cuda.stream(), 0, &mut found)?)
        })?;
        check(&found, 2)?;
        Ok(values)
    });
    peers(context, count);
}

/// A copy from each other device that the driver shows.
fn peers(context: &mut Context<'_>, count: usize) {
    let own = context.cuda().context();
    let (driver, ordinal) = (own.driver(), own.device().ordinal);
    let devices = driver.device_count().unwrap_or(1);
    let claim = "64 MiB from another device, in the stream of this one";
    if devices < 2 {
        let probe = probe("peer_copy", "from another device", claim, RowTimer::Event);
        return context.skip(&probe, "the driver shows one device");
    }
    for other in (0..devices).filter(|other| *other != ordinal) {
        let title = format!("from device {other}");
        let name = if devices == 2 {
            "peer_copy".to_owned()
        } else {
            format!("peer_copy_{other}")
        };
        let probe = probe(&name, &title, claim, RowTimer::Event);
        context.probe(&probe, &Claims::none(), |context| {
            let cuda = context.cuda();
            let peer = DeviceContext::new(cuda.context().driver(), other)?;
            let is_direct = cuda.context().can_access(&peer)?;
            if is_direct {
                cuda.context().enable_access_to(&peer)?;
            }
            let peers_stream = stepscope_device::driver::Stream::new(&peer)?;
            let mut from = DeviceBuffer::new(&peer, "what is copied", count)?;
            from.write(&peers_stream, 0, &words(count, 3))?;
            let to = DeviceBuffer::new(cuda.context(), "a copy", count)?;
            let mut copy = FromPeer { cuda, from, to };
            let mut values = context.rate(&mut copy, L2::Warm, 4.0 * count as f64)?;
            cuda.synchronize()?;
            values.note = (!is_direct)
                .then(|| "through the host: the devices cannot reach each other".to_owned());
            Ok(values)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_went_astray_is_found() {
        let mut copied = words(100, 1);
        assert!(check(&copied, 1).is_ok());
        assert!(check(&copied, 2).is_err());
        copied.swap(10, 11);
        let error = check(&copied, 1).unwrap_err().to_string();
        assert!(error.contains("word 10"), "{error}");
    }
}
