//! Arguments of the C functions: pointers, each with the one thing that may be done with it.
//!
//! They come into being only as arguments of the functions that the C ABI has, each of which is unsafe to call: whoever calls it
//! promises that every pointer is null or points to what cuda.h says, for as long as the call takes. That promise is what the
//! `unsafe` blocks here rest on. Nulls are looked for; they are the one mistake that programs make in earnest.

use std::ffi::{CStr, c_char};

use super::status::Status;

/// Where a result goes.
#[repr(transparent)]
pub(super) struct Out<T>(*mut T);

/// Where an argument, or a list of them, is.
#[repr(transparent)]
pub(super) struct In<T>(*const T);

/// A text that ends in a zero.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Text(*const c_char);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Out<T> {}
impl<T> Clone for In<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for In<T> {}

impl<T> Out<T> {
    #[cfg(test)]
    pub(super) fn to(place: &mut T) -> Self {
        Out(place)
    }

    #[cfg(test)]
    pub(super) fn to_all(places: &mut [T]) -> Self {
        Out(places.as_mut_ptr())
    }

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    pub(super) fn is_aligned_to(self, bytes: usize) -> bool {
        self.0.addr().is_multiple_of(bytes)
    }

    /// A place that the program gave as a number.
    pub(super) fn of(address: usize) -> Self {
        Out(std::ptr::with_exposed_provenance_mut(address))
    }

    /// Writes the result that the caller must have a place for.
    pub(super) fn set(self, value: T) -> Result<(), Status> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        self.set_if_wanted(value);
        Ok(())
    }

    /// Writes a result that the caller may do without.
    pub(super) fn set_if_wanted(self, value: T) {
        if !self.0.is_null() {
            // SAFETY: the caller of the C function promised room for a `T`; it need not be aligned.
            unsafe { self.0.write_unaligned(value) }
        }
    }

    /// The same place, for a result of another type.
    pub(super) fn cast<U>(self) -> Out<U> {
        Out(self.0.cast())
    }

    /// What is there, for arguments that go in and out.
    pub(super) fn get(self) -> Result<T, Status>
    where
        T: Copy,
    {
        In(self.0.cast_const()).get()
    }

    /// Writes as many of `values` as `room` allows.
    pub(super) fn fill(self, values: impl IntoIterator<Item = T>, room: usize) {
        if self.0.is_null() {
            return;
        }
        for (index, value) in values.into_iter().take(room).enumerate() {
            // SAFETY: the caller promised room for `room` values, and `index` is below it.
            unsafe { self.0.add(index).write_unaligned(value) }
        }
    }
}

impl Out<c_char> {
    /// Writes `text` and a zero into `room` bytes, cut to fit.
    pub(super) fn text(self, text: &str, room: usize) -> Result<(), Status> {
        if self.0.is_null() || room == 0 {
            return Err(Status::INVALID_VALUE);
        }
        let bytes = text.bytes().take(room - 1).chain([0]);
        self.fill(bytes.map(|byte| byte as c_char), room);
        Ok(())
    }
}

impl<T> In<T> {
    #[cfg(test)]
    pub(super) fn cast<U>(self) -> In<U> {
        In(self.0.cast())
    }

    /// Arguments at a place that the program gave as a number.
    pub(super) fn of(address: usize) -> Self {
        In(std::ptr::with_exposed_provenance(address))
    }
}

impl<T: Copy> In<T> {
    #[cfg(test)]
    pub(super) fn from(place: &T) -> Self {
        In(place)
    }

    #[cfg(test)]
    pub(super) fn all(places: &[T]) -> Self {
        In(places.as_ptr())
    }

    pub(super) fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The argument.
    pub(super) fn get(self) -> Result<T, Status> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller of the C function promised a `T` there; it need not be aligned.
        Ok(unsafe { self.0.read_unaligned() })
    }

    /// One of several arguments in a row.
    pub(super) fn at(self, index: usize) -> Result<T, Status> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller of the C function promised a row that reaches so far.
        Ok(unsafe { self.0.add(index).read_unaligned() })
    }

    /// The `count` arguments in a row.
    pub(super) fn list(self, count: usize) -> Result<Vec<T>, Status> {
        if count == 0 {
            return Ok(Vec::new());
        }
        if self.0.is_null() || count > isize::MAX as usize / size_of::<T>().max(1) {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller promised `count` values there, and `index` is below that.
        Ok((0..count)
            .map(|index| unsafe { self.0.add(index).read_unaligned() })
            .collect())
    }
}

impl Text {
    #[cfg(test)]
    pub(super) fn from(text: &CStr) -> Self {
        Text(text.as_ptr())
    }

    /// An image in memory that turned out to be a text.
    pub(super) fn of(image: In<u8>) -> Self {
        Text(image.0.cast())
    }

    /// The bytes before the zero.
    pub(super) fn bytes(self) -> Result<Vec<u8>, Status> {
        if self.0.is_null() {
            return Err(Status::INVALID_VALUE);
        }
        // SAFETY: the caller promised a text that ends in a zero; it is copied before the call returns.
        Ok(unsafe { CStr::from_ptr(self.0) }.to_bytes().to_vec())
    }

    /// The text.
    pub(super) fn get(self) -> Result<String, Status> {
        String::from_utf8(self.bytes()?).map_err(|_| Status::INVALID_VALUE)
    }
}
