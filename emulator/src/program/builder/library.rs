//! Functions without a body: those of the device.

use super::{Builder, Reg};
use crate::program::op::{Op, Width};

impl Builder<'_> {
    /// What stands in the code for a call of a function that the device itself has.
    pub(super) fn library_call(
        &mut self,
        name: &str,
        results: &[u64],
        arguments: &[u64],
    ) -> Result<(), String> {
        let local = |builder: &mut Self, index: usize| {
            let offset = arguments.get(index).copied().ok_or("a missing argument")?;
            Ok::<Reg, String>(builder.bits(offset, Width::B64))
        };
        match name {
            "vprintf" => {
                let (format, values) = (local(self, 0)?, local(self, 1)?);
                let result = results.first().copied().unwrap_or(u64::MAX);
                let result = self.bits(result, Width::B64);
                self.emit(Op::Print, &[], &[format, values, result]);
            }
            "__assertfail" => {
                let sources = [local(self, 0)?, local(self, 1)?, local(self, 2)?];
                self.emit(Op::Assert, &[], &sources);
            }
            _ => return Err(format!("the library function `{name}`")),
        }
        Ok(())
    }
}
