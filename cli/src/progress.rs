//! Progress bars, on a terminal only.

use std::io::IsTerminal as _;
use std::sync::Mutex;

use indicatif::{ProgressBar, ProgressStyle};
use stepscope_engine::model::Progress;

/// One bar on standard error, or none at all.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: Mutex<Option<ProgressBar>>,
    visible: bool,
}

impl Bar {
    /// A bar, unless `quiet` or standard error is not a terminal.
    pub(crate) fn new(quiet: bool) -> Bar {
        Bar {
            bar: Mutex::new(None),
            visible: !quiet && std::io::stderr().is_terminal(),
        }
    }

    /// Shows `done` of `total` steps.
    pub(crate) fn steps(&self, label: &str, done: usize, total: usize) {
        if !self.visible {
            return;
        }
        let mut bar = self.lock();
        if done >= total {
            if let Some(bar) = bar.take() {
                bar.finish_and_clear();
            }
            return;
        }
        let bar = bar.get_or_insert_with(|| {
            self.start("{msg}  {wide_bar} {pos}/{len} tokens", total as u64)
        });
        bar.set_message(label.to_owned());
        bar.set_position(done as u64);
    }

    /// Runs `f` with the bar out of the way, for what it prints.
    pub(crate) fn suspend<T>(&self, f: impl FnOnce() -> T) -> T {
        let bar = self.lock().clone();
        match bar {
            Some(bar) => bar.suspend(f),
            None => f(),
        }
    }

    /// Takes the bar away.
    pub(crate) fn clear(&self) {
        if let Some(bar) = self.lock().take() {
            bar.finish_and_clear();
        }
    }

    fn start(&self, template: &str, total: u64) -> ProgressBar {
        let bar = ProgressBar::new(total);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<ProgressBar>> {
        // A thread that panicked while it held the bar left nothing half done in it.
        self.bar
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Progress for Bar {
    fn begin(&self, label: &str, total_bytes: u64) {
        if self.visible {
            let bar = self.start("{msg}  {wide_bar} {bytes}/{total_bytes}", total_bytes);
            bar.set_message(label.to_owned());
            *self.lock() = Some(bar);
        }
    }

    fn advance(&self, bytes: u64) {
        if let Some(bar) = &*self.lock() {
            bar.inc(bytes);
        }
    }

    fn finish(&self) {
        self.clear();
    }
}
