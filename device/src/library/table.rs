//! The functions of a library, each resolved from the file that was chosen.

/// Declares a struct with one slot per function of a C library whose functions return a status code.
///
/// Each function becomes a method that calls it and turns its status into a `Result`; one that the library does not have
/// is an error of that call, not of loading. The signatures are cudarc's: a function that does not have the type given
/// here does not compile. Status codes are taken as plain numbers, since a newer library may answer with one that
/// cudarc's enum does not know.
///
/// The type must have `fn check(&self, function: &'static str, status: u32) -> Result<(), Error>` and
/// `fn missing(&self, function: &'static str, since: &'static str) -> Error`.
macro_rules! function_table {
    (
        $(#[$doc:meta])*
        struct $Table:ident of $sys:path => $Status:ident {
            $( $since:literal: $name:ident($($argument:ident: $type:ty),* $(,)?); )*
        }
        implemented for $Owner:ty, in its field $field:ident
    ) => {
        $(#[$doc])*
        #[allow(non_snake_case, reason = "the names are NVIDIA's")]
        #[derive(Clone, Copy)]
        struct $Table {
            $( $name: Option<unsafe extern "C" fn($($type),*) -> u32>, )*
        }

        // The signatures above are those that cudarc's bindings have.
        const _: () = {
            use $sys as sys;
            $( const _: unsafe fn($($type),*) -> sys::$Status = sys::$name; )*
        };

        impl $Table {
            /// Looks up every function by its name.
            ///
            /// # Safety
            /// What `find` gives must be the function of this name of the NVIDIA library, and stay there while the table is used.
            unsafe fn load(find: impl Fn(&str) -> Option<*const std::ffi::c_void>) -> $Table {
                $Table {
                    $( $name: find(stringify!($name)).map(|symbol| {
                        // SAFETY: the caller vouches for the function; the signature is the one of NVIDIA's header, checked
                        // against cudarc's above, and a status enum is returned as the integer it is.
                        unsafe {
                            std::mem::transmute::<
                                *const std::ffi::c_void,
                                unsafe extern "C" fn($($type),*) -> u32,
                            >(symbol)
                        }
                    }), )*
                }
            }

            /// The name of every function, with whether the library has it.
            #[allow(dead_code, reason = "not every library's functions are listed")]
            fn functions(&self) -> Vec<(&'static str, bool)> {
                vec![ $( (stringify!($name), self.$name.is_some()), )* ]
            }
        }

        #[allow(non_snake_case, reason = "the names are NVIDIA's")]
        #[allow(clippy::too_many_arguments, reason = "the signatures are NVIDIA's")]
        #[allow(dead_code, reason = "a table may hold a function for tests alone")]
        impl $Owner {
            $(
                /// # Safety
                /// As NVIDIA's documentation of the function of this name says.
                #[inline]
                pub(crate) unsafe fn $name(&self, $($argument: $type),*) -> Result<(), $crate::Error> {
                    match self.$field.$name {
                        // SAFETY: the caller keeps the function's contract; the library is never unloaded.
                        Some(function) => match unsafe { function($($argument),*) } {
                            0 => Ok(()),
                            status => self.check(stringify!($name), status),
                        },
                        None => Err(self.missing(stringify!($name), $since)),
                    }
                }
            )*
        }
    };
}
pub(crate) use function_table;
