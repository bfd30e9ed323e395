//! The arguments of a kernel, and their layout.

use std::ffi::c_void;

use super::TensorMap;

/// An address in device memory: what a kernel takes as a pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct DevicePointer(pub u64);

/// What a kernel parameter can be.
///
/// # Safety
/// The type's bytes are what the kernel reads: it must be a number or `repr(C)`, without padding or pointers to the host.
pub unsafe trait Argument: 'static {}

macro_rules! numbers {
    ($($type:ty),*) => {
        $(
            // SAFETY: a number is its bytes, in the device's order too.
            unsafe impl Argument for $type {}
        )*
    };
}
numbers!(u8, i8, u16, i16, u32, i32, u64, i64, f32, f64);

// SAFETY: it is its address alone.
unsafe impl Argument for DevicePointer {}
// SAFETY: it is the 128 bytes that the driver made for kernels.
unsafe impl Argument for TensorMap {}

/// The arguments of one kernel, as a struct whose fields are the kernel's parameters in order. [`arguments!`](crate::arguments!)
/// makes it.
///
/// # Safety
/// `with_addresses` must give the address of every field, in order, each valid while the closure runs.
pub unsafe trait Arguments {
    /// The fields, in order.
    const PARAMETERS: &'static [Parameter];

    /// Calls `use_them` with the addresses of the fields.
    fn with_addresses<R>(&self, use_them: impl FnOnce(&mut [*mut c_void]) -> R) -> R;
}

/// A kernel parameter as the host sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// The field's name.
    pub name: &'static str,
    /// Its type.
    pub type_name: &'static str,
    /// Its bytes.
    pub bytes: usize,
}

/// Declares the arguments of a kernel: a struct with one field per parameter, in the kernel's order.
///
/// ```
/// use stepscope_device::arguments;
/// use stepscope_device::driver::{Arguments, DevicePointer};
///
/// arguments! {
///     /// `extern "C" __global__ void scale(float *x, float by, unsigned n)`
///     pub struct Scale {
///         /// `[n]`
///         pub x: DevicePointer,
///         /// The factor.
///         pub by: f32,
///         /// Elements.
///         pub n: u32,
///     }
/// }
/// assert_eq!(Scale::PARAMETERS.len(), 3);
/// ```
#[macro_export]
macro_rules! arguments {
    (
        $(#[$attribute:meta])*
        $visibility:vis struct $Name:ident {
            $( $(#[$field_attribute:meta])* $field_visibility:vis $field:ident: $type:ty ),* $(,)?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Debug, Clone, Copy)]
        $visibility struct $Name {
            $( $(#[$field_attribute])* $field_visibility $field: $type, )*
        }

        // SAFETY: each field's address is given in order, and outlives the closure with `self`.
        unsafe impl $crate::driver::Arguments for $Name {
            const PARAMETERS: &'static [$crate::driver::Parameter] = &[
                $( $crate::driver::Parameter {
                    name: stringify!($field),
                    type_name: stringify!($type),
                    bytes: size_of::<$type>(),
                }, )*
            ];

            #[inline]
            fn with_addresses<R>(
                &self,
                use_them: impl FnOnce(&mut [*mut ::std::ffi::c_void]) -> R,
            ) -> R {
                fn address<T: $crate::driver::Argument>(argument: &T) -> *mut ::std::ffi::c_void {
                    ::std::ptr::from_ref(argument).cast_mut().cast()
                }
                use_them(&mut [$( address(&self.$field) ),*])
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_the_fields_in_order() {
        arguments! {
            struct Mixed {
                a: u8,
                b: DevicePointer,
                map: TensorMap,
            }
        }
        let parameters: Vec<_> = Mixed::PARAMETERS
            .iter()
            .map(|p| (p.name, p.type_name, p.bytes))
            .collect();
        assert_eq!(
            parameters,
            [
                ("a", "u8", 1),
                ("b", "DevicePointer", 8),
                ("map", "TensorMap", 128)
            ]
        );
    }

    #[test]
    fn addresses_are_those_of_the_fields() {
        arguments! {
            struct Two {
                a: u32,
                b: f32,
            }
        }
        let two = Two { a: 7, b: 0.5 };
        two.with_addresses(|addresses| {
            let [a, b] = addresses else {
                panic!("two fields")
            };
            // SAFETY: the addresses are those of a `u32` and an `f32` that live.
            assert_eq!(unsafe { (*a.cast::<u32>(), *b.cast::<f32>()) }, (7, 0.5));
        });
    }
}
