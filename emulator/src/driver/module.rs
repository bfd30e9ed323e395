//! Modules, libraries, and how their PTX is loaded.

use std::collections::BTreeMap;
use std::ffi::c_char;
use std::sync::{Arc, Mutex};

use super::abi::functions;
use super::argument::{In, Out, Text};
use super::context::Context;
pub(super) use super::function::{Function, LibraryKernel};
use super::gpu::Gpu;
use super::registry::{Handle, Object as _, lock, object};
use super::report::complain;
use super::status::Status;
use crate::{Error, ErrorKind, ptx};

/// A module in a context.
pub(super) struct Module {
    pub(super) handle: Handle<Module>,
    pub(super) context: Arc<Context>,
    pub(super) code: Arc<crate::Module>,
    /// Target architecture and PTX version, as `90` and `90` for `sm_90a` and 9.0.
    pub(super) target: u32,
    pub(super) version: u32,
    functions: Mutex<BTreeMap<String, Handle<Function>>>,
}

/// A library: PTX that becomes a module in each context that uses it.
pub(super) struct Library {
    handle: Handle<Library>,
    text: String,
    modules: Mutex<BTreeMap<usize, Arc<Module>>>,
    kernels: Mutex<BTreeMap<String, Handle<LibraryKernel>>>,
}

object!(Module);
object!(Library);

/// `CUjit_option` numbers of the buffers for messages.
const INFO_LOG_BYTES: u32 = 4;
const ERROR_LOG: u32 = 5;
const ERROR_LOG_BYTES: u32 = 6;

/// The newest PTX major version that a driver for CUDA 13 takes.
const NEWEST_PTX: u32 = 9;
const ELF: [u8; 4] = *b"\x7fELF";
/// First words of a fat binary, and of the wrapper that compilers put around one.
const FATBIN: u32 = 0xba55_ed50;
const FATBIN_WRAPPER: u32 = 0x4662_43b1;

/// Why an image was not loaded: the answer, and the message for the log.
struct Refusal {
    status: Status,
    message: String,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Refusal {
            status,
            message: String::new(),
        }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        // The first line should say what is wrong, for those who show no more than that.
        let text = error.to_string();
        let message = text.replacen(":\n  ", ": ", 1);
        if error.kind() == ErrorKind::Unsupported {
            complain(&text);
        }
        Refusal {
            status: error.into(),
            message,
        }
    }
}

/// The PTX of an image in memory, which ends in a zero.
fn text_of(image: In<u8>) -> Result<String, Refusal> {
    if image.is_null() {
        return Err(Status::INVALID_VALUE.into());
    }
    // A text may be shorter than four bytes, and then ends in a zero.
    let mut start = [0; 4];
    for (index, byte) in start.iter_mut().enumerate() {
        *byte = image.at(index)?;
        if *byte == 0 {
            break;
        }
    }
    let word = u32::from_le_bytes(start);
    if start == ELF || word == FATBIN || word == FATBIN_WRAPPER {
        let message = "the image is machine code (a cubin or a fat binary); an emulated device runs PTX only: load that";
        complain(message);
        return Err(Refusal {
            status: Status::NO_BINARY_FOR_GPU,
            message: message.to_owned(),
        });
    }
    let bytes = Text::of(image).bytes()?;
    String::from_utf8(bytes).map_err(|_| Refusal {
        status: Status::INVALID_PTX,
        message: "the image is not text".to_owned(),
    })
}

/// `sm_90a`: 90, and whether it is for that architecture alone.
fn architecture(target: &str) -> Option<(u32, bool)> {
    let name = target.split(',').next()?.trim();
    let number = name.strip_prefix("sm_")?;
    let digits = number.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    Some((digits.parse().ok()?, digits.len() < number.len()))
}

/// Whether the device takes PTX for this target: `ptxas` compiles for its own architecture and newer ones, and code for the
/// features of one architecture (`sm_90a`) for that one only.
fn check_target(gpu: &Gpu, target: &str) -> Result<u32, Refusal> {
    let (major, minor) = gpu.device.options().compute_capability;
    let own = major * 10 + minor;
    let Some((wanted, is_exact)) = architecture(target) else {
        return Ok(own);
    };
    if wanted > own || is_exact && wanted != own {
        return Err(Refusal {
            status: Status::NO_BINARY_FOR_GPU,
            message: format!("the PTX is for {target}, and the emulated device is sm_{own}"),
        });
    }
    Ok(wanted)
}

fn load(context: &Arc<Context>, text: &str) -> Result<Arc<Module>, Refusal> {
    let ast = ptx::parser::parse(text)?;
    if ast.version.0 > NEWEST_PTX {
        return Err(Refusal {
            status: Status::UNSUPPORTED_PTX_VERSION,
            message: format!("unsupported .version {}.{}", ast.version.0, ast.version.1),
        });
    }
    let target = check_target(&context.gpu, &ast.target)?;
    let code = context.gpu.device.load_module(text)?;
    Ok(Arc::new(Module {
        handle: Handle::reserve(),
        context: Arc::clone(context),
        code,
        target,
        version: ast.version.0 * 10 + ast.version.1,
        functions: Mutex::new(BTreeMap::new()),
    }))
}

impl Module {
    /// The kernel of this name. The same name has the same handle.
    pub(super) fn function(self: &Arc<Self>, name: &str) -> Result<Handle<Function>, Status> {
        let mut functions = lock(&self.functions);
        if let Some(known) = functions.get(name) {
            return Ok(*known);
        }
        let kernel = self.code.kernel(name).map_err(|_| Status::NOT_FOUND)?;
        let function = Function::new(self, kernel);
        functions.insert(name.to_owned(), function);
        Ok(function)
    }
}

impl Library {
    pub(super) fn number(&self) -> usize {
        self.handle.number()
    }

    /// Its module in the current context.
    pub(super) fn module(&self) -> Result<Arc<Module>, Status> {
        let context = Context::current()?;
        let mut modules = lock(&self.modules);
        let key = context.handle.number();
        match modules.get(&key) {
            Some(module) if !module.context.is_gone() => Ok(Arc::clone(module)),
            _ => {
                let module = load(&context, &self.text).map_err(|refusal| refusal.status)?;
                Module::registry().add(module.handle, Arc::clone(&module));
                modules.insert(key, Arc::clone(&module));
                Ok(module)
            }
        }
    }
}

fn publish(out: Out<Handle<Module>>, module: Arc<Module>) -> Result<(), Status> {
    let handle = module.handle;
    Module::registry().add(handle, module);
    out.set(handle)
}

/// Where the program wants messages about its PTX.
#[derive(Default)]
struct Log {
    place: usize,
    room: usize,
}

impl Log {
    fn of(count: u32, options: In<u32>, values: In<usize>) -> Result<Log, Status> {
        let mut log = Log::default();
        if count == 0 {
            return Ok(log);
        }
        let (options, values) = (options.list(count as usize)?, values.list(count as usize)?);
        for (option, value) in options.into_iter().zip(values) {
            match option {
                ERROR_LOG => log.place = value,
                ERROR_LOG_BYTES => log.room = value & 0xffff_ffff,
                INFO_LOG_BYTES => {}
                _ => {}
            }
        }
        Ok(log)
    }

    fn write(&self, message: &str) {
        let place: Out<c_char> = Out::of(self.place);
        // Without a place there is nobody to tell.
        let _ = place.text(message, self.room);
    }
}

fn load_image(out: Out<Handle<Module>>, image: In<u8>, log: &Log) -> Result<(), Status> {
    let context = Context::current()?;
    if out.is_null() {
        return Err(Status::INVALID_VALUE);
    }
    context.works()?;
    let loaded = text_of(image).and_then(|text| load(&context, &text));
    match loaded {
        Ok(module) => publish(out, module),
        Err(refusal) => {
            log.write(&refusal.message);
            Err(refusal.status)
        }
    }
}

fn load_library(out: Out<Handle<Library>>, text: String) -> Result<(), Refusal> {
    if out.is_null() {
        return Err(Status::INVALID_VALUE.into());
    }
    // Mistakes come out here, where there is a log, rather than at the first use.
    let ast = ptx::parser::parse(&text)?;
    let gpus = &super::gpu::machine()?.gpus;
    check_target(gpus.first().ok_or(Status::NO_DEVICE)?, &ast.target)?;
    let handle = Handle::reserve();
    let library = Arc::new(Library {
        handle,
        text,
        modules: Mutex::new(BTreeMap::new()),
        kernels: Mutex::new(BTreeMap::new()),
    });
    if Context::current().is_ok() {
        library.module()?;
    }
    Library::registry().add(handle, library);
    Ok(out.set(handle)?)
}

fn read(path: Text) -> Result<String, Status> {
    let path = path.get()?;
    let bytes = std::fs::read(path).map_err(|_| Status::FILE_NOT_FOUND)?;
    if bytes.starts_with(&ELF) {
        complain("the file is a cubin; an emulated device runs PTX only");
        return Err(Status::NO_BINARY_FOR_GPU);
    }
    let text = String::from_utf8(bytes).map_err(|_| Status::INVALID_PTX)?;
    Ok(text.trim_end_matches('\0').to_owned())
}

functions! {
    fn cuModuleLoadData(module: Out<Handle<Module>>, image: In<u8>) {
        load_image(module, image, &Log::default())
    }

    fn cuModuleLoadDataEx(
        module: Out<Handle<Module>>, image: In<u8>, count: u32, options: In<u32>, values: In<usize>,
    ) {
        load_image(module, image, &Log::of(count, options, values)?)
    }

    fn cuModuleLoadFatBinary(module: Out<Handle<Module>>, image: In<u8>) {
        load_image(module, image, &Log::default())
    }

    fn cuModuleLoad(module: Out<Handle<Module>>, path: Text) {
        let context = Context::current()?;
        let text = read(path)?;
        let loaded = load(&context, &text).map_err(|refusal| {
            complain(&refusal.message);
            refusal.status
        })?;
        publish(module, loaded)
    }

    fn cuModuleUnload(module: Handle<Module>) {
        super::gpu::machine()?;
        Module::registry().remove(module).ok_or(Status::INVALID_HANDLE)?;
        Function::registry().remove_where(|function| function.module.handle == module);
        Ok(())
    }

    fn cuModuleGetLoadingMode(mode: Out<u32>) {
        mode.set(1) // eager
    }

    fn cuModuleGetFunction(function: Out<Handle<Function>>, module: Handle<Module>, name: Text) {
        let module = module.get()?;
        function.set(module.function(&name.get()?)?)
    }

    fn cuModuleGetFunctionCount(count: Out<u32>, module: Handle<Module>) {
        count.set(module.get()?.code.kernel_names().count() as u32)
    }

    fn cuModuleEnumerateFunctions(functions: Out<Handle<Function>>, count: u32, module: Handle<Module>) {
        let module = module.get()?;
        let names: Vec<String> = module.code.kernel_names().map(str::to_owned).collect();
        let all: Result<Vec<_>, _> = names.iter().map(|name| module.function(name)).collect();
        functions.fill(all?, count as usize);
        Ok(())
    }

    fn cuModuleGetGlobal_v2(address: Out<u64>, bytes: Out<usize>, module: Handle<Module>, name: Text) {
        let (start, length) = module.get()?.code.global(&name.get()?).ok_or(Status::NOT_FOUND)?;
        address.set_if_wanted(start);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }

    fn cuLibraryLoadData(
        library: Out<Handle<Library>>, image: In<u8>, options: In<u32>, values: In<usize>, count: u32,
        _library_options: In<u32>, _library_values: In<usize>, _library_count: u32,
    ) {
        super::gpu::machine()?;
        let log = Log::of(count, options, values)?;
        text_of(image).and_then(|text| load_library(library, text)).map_err(|refusal| {
            log.write(&refusal.message);
            refusal.status
        })
    }

    fn cuLibraryLoadFromFile(
        library: Out<Handle<Library>>, path: Text, options: In<u32>, values: In<usize>, count: u32,
        _library_options: In<u32>, _library_values: In<usize>, _library_count: u32,
    ) {
        super::gpu::machine()?;
        let log = Log::of(count, options, values)?;
        load_library(library, read(path)?).map_err(|refusal| {
            log.write(&refusal.message);
            refusal.status
        })
    }

    fn cuLibraryUnload(library: Handle<Library>) {
        super::gpu::machine()?;
        let library = Library::registry().remove(library).ok_or(Status::INVALID_HANDLE)?;
        LibraryKernel::registry().remove_where(|kernel| kernel.library.handle == library.handle);
        let modules = std::mem::take(&mut *lock(&library.modules));
        for module in modules.into_values() {
            Function::registry().remove_where(|function| function.module.handle == module.handle);
            Module::registry().remove(module.handle);
        }
        Ok(())
    }

    fn cuLibraryGetModule(module: Out<Handle<Module>>, library: Handle<Library>) {
        module.set(library.get()?.module()?.handle)
    }

    fn cuLibraryGetKernel(kernel: Out<Handle<LibraryKernel>>, library: Handle<Library>, name: Text) {
        let library = library.get()?;
        let name = name.get()?;
        // Looked up where there is a context; without one, at its first use.
        if Context::current().is_ok() {
            library.module()?.function(&name)?;
        }
        let mut kernels = lock(&library.kernels);
        let handle = *kernels.entry(name.clone()).or_insert_with(|| LibraryKernel::add(&library, &name));
        kernel.set(handle)
    }

    fn cuLibraryGetKernelCount(count: Out<u32>, library: Handle<Library>) {
        count.set(library.get()?.module()?.code.kernel_names().count() as u32)
    }

    fn cuLibraryGetGlobal(address: Out<u64>, bytes: Out<usize>, library: Handle<Library>, name: Text) {
        let module = library.get()?.module()?;
        let (start, length) = module.code.global(&name.get()?).ok_or(Status::NOT_FOUND)?;
        address.set_if_wanted(start);
        bytes.set_if_wanted(length as usize);
        Ok(())
    }
}
