//! The ways of `stepscope-device`.

use std::ffi::c_void;
use std::ptr::from_mut;
use std::sync::Arc;

use stepscope_device::arguments;
use stepscope_device::driver::{
    DeviceBuffer, DevicePointer, Function, Graph, GraphExec, Kernel, Launch, Module, Stream,
};

use super::{BATCH, KERNEL, PTX, THREADS, Way};
use crate::Error;

arguments! {
    struct Tick {
        counter: DevicePointer,
        a: DevicePointer,
        b: DevicePointer,
        c: DevicePointer,
        n: u32,
        x: f32,
    }
}

/// The kernel and its memory.
struct Loaded {
    stream: Arc<Stream>,
    function: Function,
    counter: DeviceBuffer<u64>,
    other: DeviceBuffer<f32>,
}

impl Loaded {
    fn new(stream: &Arc<Stream>) -> Result<Loaded, Error> {
        let context = stream.context();
        // A driver wants the text terminated.
        let image = format!("{PTX}\0");
        let module = Module::load(context, "tick.ptx", image.as_bytes())?;
        let mut counter = DeviceBuffer::new(context, "a counter", 1)?;
        counter.fill(stream, 0)?;
        Ok(Loaded {
            stream: Arc::clone(stream),
            function: module.function(KERNEL)?,
            counter,
            other: DeviceBuffer::new(context, "numbers", 32)?,
        })
    }

    fn arguments(&self) -> Tick {
        let other = self.other.pointer();
        Tick {
            counter: self.counter.pointer(),
            a: other,
            b: other,
            c: other,
            n: 1,
            x: 0.5,
        }
    }

    fn wait(&self) -> Result<u64, Error> {
        self.stream.synchronize()?;
        let mut count = [0];
        self.counter.read(&self.stream, 0, &mut count)?;
        Ok(count[0])
    }
}

/// `cuLaunchKernel`, with the addresses of the arguments in an array.
pub(super) struct Raw(Loaded);

impl Raw {
    pub(super) fn new(stream: &Arc<Stream>) -> Result<Raw, Error> {
        Ok(Raw(Loaded::new(stream)?))
    }
}

impl Way for Raw {
    fn launch(&mut self, count: usize) -> Result<(), Error> {
        let Loaded {
            stream, function, ..
        } = &self.0;
        let mut arguments = self.0.arguments();
        for _ in 0..count {
            let Tick {
                counter,
                a,
                b,
                c,
                n,
                x,
            } = &mut arguments;
            let mut addresses: [*mut c_void; 6] = [
                from_mut(counter).cast(),
                from_mut(a).cast(),
                from_mut(b).cast(),
                from_mut(c).cast(),
                from_mut(n).cast(),
                from_mut(x).cast(),
            ];
            // SAFETY: these are the kernel's six parameters; its memory lives as long as this way, and the stream is waited for
            // before it goes.
            unsafe {
                function.launch_raw(stream, [[1, 1, 1], [THREADS, 1, 1]], 0, &mut addresses)?;
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<u64, Error> {
        self.0.wait()
    }
}

/// `Kernel::launch`, as every kernel of this project is launched.
pub(super) struct Typed {
    loaded: Loaded,
    kernel: Kernel<Tick>,
}

impl Typed {
    pub(super) fn new(stream: &Arc<Stream>) -> Result<Typed, Error> {
        let loaded = Loaded::new(stream)?;
        let kernel = loaded.function.clone().with_arguments()?;
        Ok(Typed { loaded, kernel })
    }
}

impl Way for Typed {
    fn launch(&mut self, count: usize) -> Result<(), Error> {
        let arguments = self.loaded.arguments();
        for _ in 0..count {
            let launch = Launch::of_blocks(1, THREADS);
            // SAFETY: as for `Raw`.
            unsafe {
                self.kernel
                    .launch(&self.loaded.stream, &launch, &arguments)?
            };
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<u64, Error> {
        self.loaded.wait()
    }
}

/// A graph of [`BATCH`] launches, replayed by one call.
pub(super) struct Replayed {
    typed: Typed,
    graph: GraphExec,
}

impl Replayed {
    pub(super) fn new(stream: &Arc<Stream>) -> Result<Replayed, Error> {
        let typed = Typed::new(stream)?;
        let (arguments, launch) = (typed.loaded.arguments(), Launch::of_blocks(1, THREADS));
        let graph = Graph::capture(stream, || {
            for _ in 0..BATCH {
                // SAFETY: as for `Raw`; the graph is replayed by this way alone.
                unsafe { typed.kernel.launch(stream, &launch, &arguments)? };
            }
            Ok(())
        })?;
        let graph = graph.instantiate()?;
        graph.upload(stream)?;
        Ok(Replayed { typed, graph })
    }
}

impl Way for Replayed {
    fn launch(&mut self, count: usize) -> Result<(), Error> {
        for _ in 0..count / BATCH {
            // SAFETY: what the graph was recorded with lives as long as this way, and is used in this stream alone.
            unsafe { self.graph.launch(&self.typed.loaded.stream)? };
        }
        Ok(())
    }

    fn wait(&mut self) -> Result<u64, Error> {
        self.typed.wait()
    }
}
