//! Handles: numbers that stand for objects. A number is given out once, so a handle of something that is gone, or one that was
//! never given out, is told from every other.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::status::Status;

/// What has handles.
pub(super) trait Object: Send + Sync + Sized + 'static {
    /// The answer where a handle stands for nothing.
    const STALE: Status = Status::INVALID_HANDLE;

    fn registry() -> &'static Registry<Self>;
}

/// Gives a type its registry.
macro_rules! object {
    ($Type:ty $(, stale: $status:expr)?) => {
        impl $crate::driver::registry::Object for $Type {
            $( const STALE: $crate::driver::status::Status = $status; )?

            fn registry() -> &'static $crate::driver::registry::Registry<Self> {
                static REGISTRY: $crate::driver::registry::Registry<$Type> =
                    $crate::driver::registry::Registry::new();
                &REGISTRY
            }
        }
    };
}
pub(super) use object;

/// A handle, as C sees it: as wide as a pointer, which nobody looks behind.
#[repr(transparent)]
pub(super) struct Handle<T>(usize, PhantomData<fn() -> T>);

impl<T> Clone for Handle<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Handle<T> {}
impl<T> PartialEq for Handle<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}
impl<T> Eq for Handle<T> {}
impl<T> std::fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl<T> Handle<T> {
    pub(super) const NULL: Self = Self(0, PhantomData);

    pub(super) fn of(number: usize) -> Self {
        Self(number, PhantomData)
    }

    /// A number that no other handle has. Small numbers are left out: cuda.h gives some of them a meaning.
    pub(super) fn reserve() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0x5c0_0000);
        Self::of(NEXT.fetch_add(16, Ordering::Relaxed))
    }

    pub(super) fn number(self) -> usize {
        self.0
    }

    /// The same number, as a handle of something else.
    pub(super) fn cast<U>(self) -> Handle<U> {
        Handle::of(self.0)
    }
}

impl<T: Object> Handle<T> {
    /// What it stands for, if it is there.
    pub(super) fn find(self) -> Option<Arc<T>> {
        let objects = &T::registry().objects;
        let objects = objects.read().unwrap_or_else(PoisonError::into_inner);
        objects.get(&self.0).cloned()
    }

    /// What it stands for.
    pub(super) fn get(self) -> Result<Arc<T>, Status> {
        self.find().ok_or(T::STALE)
    }
}

/// All objects of a type, by the number of their handles.
pub(super) struct Registry<T> {
    objects: RwLock<BTreeMap<usize, Arc<T>>>,
}

impl<T> Registry<T> {
    pub(super) const fn new() -> Self {
        Self {
            objects: RwLock::new(BTreeMap::new()),
        }
    }

    pub(super) fn add(&self, handle: Handle<T>, object: Arc<T>) {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        objects.insert(handle.0, object);
    }

    pub(super) fn remove(&self, handle: Handle<T>) -> Option<Arc<T>> {
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        objects.remove(&handle.0)
    }

    /// Removes all that `condition` holds for. They are dropped here, outside of the lock.
    pub(super) fn remove_where(&self, condition: impl Fn(&T) -> bool) {
        let mut removed = Vec::new();
        let mut objects = self.objects.write().unwrap_or_else(PoisonError::into_inner);
        objects.retain(|_, object| {
            let stays = !condition(object);
            if !stays {
                removed.push(Arc::clone(object));
            }
            stays
        });
        drop(objects);
    }
}

/// Locks. What a panic left behind is used as it is: each change below a lock is a single step.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
