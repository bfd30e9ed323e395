//! The report as a page for a person.

use std::fmt;

use super::{Gpu, LibraryReport, Report};

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Libraries")?;
        for library in &self.libraries {
            writeln!(f, "  {}", library_line(library))?;
        }
        writeln!(f, "\nDriver")?;
        match (&self.driver, &self.driver_problem) {
            (Some(driver), _) => {
                let version = driver.version.as_deref().unwrap_or("of unknown version");
                writeln!(f, "  {version}, for CUDA {} and older", driver.cuda)?;
                if !driver.missing_functions.is_empty() {
                    writeln!(f, "  too old for {}", driver.missing_functions.join(", "))?;
                }
            }
            (None, Some(problem)) => writeln!(f, "  {problem}")?,
            (None, None) => writeln!(f, "  none")?,
        }
        writeln!(f, "\nGPUs")?;
        for gpu in &self.gpus {
            write_gpu(f, gpu)?;
        }
        if self.gpus.is_empty() {
            writeln!(f, "  none that a driver sees")?;
        }
        writeln!(f, "\nHardware counters")?;
        let allowed = match self.counters.allowed {
            Some(true) => "allowed",
            Some(false) => "not allowed",
            None => "not known",
        };
        writeln!(f, "  {allowed}: {}", self.counters.reason)?;
        writeln!(f, "\nCompiler")?;
        match &self.compiler {
            Some(compiler) => {
                let numbers = compiler.compute_capabilities.iter();
                let numbers: Vec<String> =
                    numbers.map(|n| format!("{}.{}", n / 10, n % 10)).collect();
                writeln!(
                    f,
                    "  NVRTC {}, for compute capability {}",
                    compiler.version,
                    numbers.join(", ")
                )?;
            }
            None => writeln!(f, "  none")?,
        }
        writeln!(f, "\nCompiled kernels")?;
        match &self.cache {
            Some(cache) => writeln!(
                f,
                "  {} files, {:.1} MB in {}",
                cache.usage.files,
                cache.usage.bytes as f64 / 1e6,
                cache.folder.display()
            )?,
            None => writeln!(f, "  nowhere to keep them")?,
        }
        if self.missing.is_empty() {
            return write!(f, "\nNothing is missing.");
        }
        write!(f, "\nMissing")?;
        for missing in &self.missing {
            write!(f, "\n  {}, for {}", missing.what, missing.disables)?;
            write!(f, "\n    {}", missing.way_out)?;
            if !missing.tried.is_empty() {
                write!(f, "\n    looked for it in: {}", missing.tried.join(", "))?;
            }
        }
        Ok(())
    }
}

/// `found    13.0     NVIDIA's … (Python packages): /opt/libnvrtc.so.13`
fn library_line(library: &LibraryReport) -> String {
    match (&library.path, library.origin) {
        (Some(path), Some(origin)) => {
            let version = library
                .version
                .as_ref()
                .map(|version| format!(" {version}"))
                .unwrap_or_default();
            format!(
                "found    {}{version}: {} ({})",
                library.title,
                path.display(),
                origin.words()
            )
        }
        _ => format!("missing  {}", library.title),
    }
}

fn write_gpu(f: &mut fmt::Formatter<'_>, gpu: &Gpu) -> fmt::Result {
    let device = &gpu.device;
    let [major, minor] = device.compute_capability;
    let gigabytes = device.memory_bytes as f64 / 1e9;
    let multiprocessors = device.limits.multiprocessors;
    writeln!(
        f,
        "  {}: {}, compute capability {major}.{minor}, {multiprocessors} multiprocessors, {gigabytes:.1} GB",
        device.ordinal, device.name
    )?;
    let Some(state) = &gpu.state else {
        return writeln!(f, "     its state is not known without NVML");
    };
    let of = |now: Option<u32>, most: Option<u32>| match (now, most) {
        (Some(now), Some(most)) => format!("{now} of {most} MHz"),
        (Some(now), None) => format!("{now} MHz"),
        _ => "not known".to_owned(),
    };
    let number = |value: Option<f64>, unit: &str| {
        value.map_or("not known".to_owned(), |value| format!("{value:.0} {unit}"))
    };
    writeln!(
        f,
        "     clocks: multiprocessors {}, memory {}; throttled by: {}",
        of(state.sm_clock_mhz, state.max_sm_clock_mhz),
        of(state.memory_clock_mhz, state.max_memory_clock_mhz),
        match &state.throttled_by {
            None => "not known".to_owned(),
            Some(reasons) if reasons.is_empty() => "nothing".to_owned(),
            Some(reasons) => reasons.join(", "),
        }
    )?;
    writeln!(
        f,
        "     power: {} of {}; temperature: {}; memory in use: {}",
        number(state.power_watts, "W"),
        number(state.power_limit_watts, "W"),
        number(state.temperature_celsius.map(f64::from), "°C"),
        number(
            state.used_memory_bytes.map(|bytes| bytes as f64 / 1e6),
            "MB"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::without_a_gpu;
    use super::*;
    use crate::doctor::GpuState;
    use crate::driver::{Device, Limits};

    #[test]
    fn a_machine_with_a_compiler_alone() {
        let text = without_a_gpu().to_string();
        let expected = "\
Libraries
  missing  the NVIDIA driver's libcuda
  missing  the NVIDIA driver's libnvidia-ml
  found    NVIDIA's run-time compiler NVRTC 13.0: /opt/libnvrtc.so.13 (Python packages)
  missing  NVIDIA's profiling interface CUPTI
  missing  NVIDIA's cuBLASLt
  missing  NVIDIA's NCCL

Driver
  none

GPUs
  none that a driver sees

Hardware counters
  not known: no NVIDIA kernel module is loaded

Compiler
  NVRTC 13.0, for compute capability 8.0, 9.0

Compiled kernels
  2 files, 3.1 MB in /home/me/.cache/stepscope

Missing
  the NVIDIA driver's libcuda, for running anything on a GPU
    get the NVIDIA driver's libcuda
";
        assert!(text.starts_with(expected), "{text}");
    }

    #[test]
    fn a_gpu_with_its_state() {
        let mut report = without_a_gpu();
        report.gpus.push(Gpu {
            device: Device {
                ordinal: 0,
                name: "NVIDIA H100 80GB HBM3".to_owned(),
                uuid: "GPU-0".to_owned(),
                compute_capability: [9, 0],
                memory_bytes: 85_000_000_000,
                limits: Limits {
                    multiprocessors: 132,
                    ..Limits::default()
                },
            },
            state: Some(GpuState {
                sm_clock_mhz: Some(1200),
                max_sm_clock_mhz: Some(1980),
                throttled_by: Some(vec!["sw power cap".to_owned()]),
                power_watts: Some(698.6),
                power_limit_watts: Some(700.0),
                ..GpuState::default()
            }),
        });
        let text = report.to_string();
        let expected = "
GPUs
  0: NVIDIA H100 80GB HBM3, compute capability 9.0, 132 multiprocessors, 85.0 GB
     clocks: multiprocessors 1200 of 1980 MHz, memory not known; throttled by: sw power cap
     power: 699 W of 700 W; temperature: not known; memory in use: not known
";
        assert!(text.contains(expected), "{text}");
    }
}
