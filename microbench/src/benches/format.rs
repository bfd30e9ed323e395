//! How results are printed: times, and rates with the part of the roof that they reach.

use std::cell::RefCell;
use std::rc::Rc;

use criterion::Throughput;
use criterion::measurement::ValueFormatter;
use stepscope_profiler::quantity::{duration_with_digits, percent, with_prefix};

use super::roofs::Bound;

/// What the numbers of the benchmark that runs mean.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Scale {
    /// What an element of its throughput is: `FLOP`, `token`, `request`.
    pub(super) element: &'static str,
    /// What bounds it.
    pub(super) bound: Option<Bound>,
}

impl Default for Scale {
    fn default() -> Scale {
        Scale {
            element: "element",
            bound: None,
        }
    }
}

/// Formats values in nanoseconds; shared with whoever knows which benchmark runs.
#[derive(Debug, Clone, Default)]
pub(super) struct Format(pub(super) Rc<RefCell<Scale>>);

impl Format {
    /// Per second and nanoseconds, its unit, and the roof in that unit with what it is.
    fn rate(&self, throughput: &Throughput) -> (f64, &'static str, Option<(f64, String)>) {
        let scale = self.0.borrow();
        let bound = scale.bound.as_ref();
        match *throughput {
            Throughput::Bytes(bytes) | Throughput::BytesDecimal(bytes) => {
                let of = |bound: &Bound| Some((bound.roof.bytes_per_s?, bound.of_bytes()));
                (bytes as f64, "B/s", bound.and_then(of))
            }
            Throughput::Bits(bits) => (bits as f64, "bit/s", None),
            Throughput::Elements(elements) | Throughput::ElementsAndBytes { elements, .. } => {
                let of = |bound: &Bound| Some((bound.roof.flops_per_s?, bound.of_flops()));
                let (unit, roof) = match scale.element {
                    "FLOP" => ("FLOP/s", bound.and_then(of)),
                    "token" => ("token/s", None),
                    "request" => ("request/s", None),
                    _ => ("element/s", None),
                };
                (elements as f64, unit, roof)
            }
        }
    }
}

impl ValueFormatter for Format {
    fn format_value(&self, value: f64) -> String {
        duration_with_digits(value, 4)
    }

    fn format_throughput(&self, throughput: &Throughput, value: f64) -> String {
        let (amount, unit, roof) = self.rate(throughput);
        let rate = amount / (value * 1e-9);
        let text = with_prefix(rate, unit);
        match roof {
            Some((roof, name)) => format!("{text}, {} of {name}", percent(rate / roof)),
            None => text,
        }
    }

    fn scale_values(&self, typical: f64, values: &mut [f64]) -> &'static str {
        let (factor, unit) = match typical {
            ns if ns < 1e3 => (1.0, "ns"),
            ns if ns < 1e6 => (1e-3, "µs"),
            ns if ns < 1e9 => (1e-6, "ms"),
            _ => (1e-9, "s"),
        };
        values.iter_mut().for_each(|value| *value *= factor);
        unit
    }

    fn scale_throughputs(
        &self,
        typical: f64,
        throughput: &Throughput,
        values: &mut [f64],
    ) -> &'static str {
        let (amount, unit, _) = self.rate(throughput);
        let (divisor, unit) = match (amount / (typical * 1e-9), unit) {
            (rate, "B/s") if rate >= 1e12 => (1e12, "TB/s"),
            (_, "B/s") => (1e9, "GB/s"),
            (rate, "FLOP/s") if rate >= 1e12 => (1e12, "TFLOP/s"),
            (_, "FLOP/s") => (1e9, "GFLOP/s"),
            (_, unit) => (1.0, unit),
        };
        for value in values {
            *value = amount / (*value * 1e-9) / divisor;
        }
        unit
    }

    fn scale_for_machines(&self, _values: &mut [f64]) -> &'static str {
        "ns"
    }
}

#[cfg(test)]
mod tests {
    use stepscope_profiler::microbench::Roof;

    use super::super::roofs::Origin;
    use super::*;

    fn with(element: &'static str, rates: Option<[f64; 2]>) -> Format {
        let bound = rates.map(|[flops_per_s, bytes_per_s]| Bound {
            roof: Roof {
                flops_per_s: Some(flops_per_s),
                bytes_per_s: Some(bytes_per_s),
                source: "measured".to_owned(),
            },
            origin: Origin::Measured,
            level: Some("L2".to_owned()),
        });
        Format(Rc::new(RefCell::new(Scale { element, bound })))
    }

    #[test]
    fn rates_say_how_much_of_the_roof_they_are() {
        let h100 = with("FLOP", Some([989e12, 3.35e12]));
        let gemm = Throughput::Elements(2 * 8192 * 4096 * 4096);
        assert_eq!(h100.format_value(412_345.0), "412.3 µs");
        assert_eq!(
            h100.format_throughput(&gemm, 412_345.0),
            "667 TFLOP/s, 67 % of measured roof"
        );
        assert_eq!(
            h100.format_throughput(&Throughput::Bytes(33_554_432), 12_500.0),
            "2.68 TB/s, 80 % of measured L2 roof"
        );
        let plain = with("token", None);
        assert_eq!(
            plain.format_throughput(&Throughput::Elements(64), 1e7),
            "6.40 ktoken/s"
        );
    }

    #[test]
    fn plots_and_files_get_one_unit_for_all_values() {
        let format = with("FLOP", None);
        let mut values = [1e6, 2e6];
        let unit = format.scale_throughputs(1e6, &Throughput::Elements(4_000_000_000), &mut values);
        assert_eq!((unit, values), ("TFLOP/s", [4.0, 2.0]));
        let mut values = [2_000.0, 500.0];
        assert_eq!(
            (format.scale_values(2_000.0, &mut values), values),
            ("µs", [2.0, 0.5])
        );
    }
}
