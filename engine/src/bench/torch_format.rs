//! A matrix of floats as PyTorch prints a tensor, with its default print options.

/// Rows and columns shown at each edge of a matrix that is summarised.
const EDGE: usize = 3;
/// A tensor of more elements than this is summarised.
const THRESHOLD: usize = 1000;
/// Digits after the point.
const PRECISION: usize = 4;

/// `values`, `[rows, columns]`, as `str(tensor)` gives it.
pub(crate) fn matrix(values: &[f32], columns: usize) -> String {
    if values.is_empty() || columns == 0 {
        return "tensor([])".to_owned();
    }
    let rows: Vec<&[f32]> = values.chunks(columns).collect();
    let summarise = values.len() > THRESHOLD;
    let shown_rows = shown(rows.len(), summarise);
    let shown_columns = shown(columns, summarise);
    let cells = |row: usize| shown_columns.iter().map(move |&c| c.map(|c| (row, c)));
    let shown_values: Vec<f64> = shown_rows
        .iter()
        .flatten()
        .flat_map(|&r| cells(r).flatten())
        .map(|(r, c)| f64::from(rows[r][c]))
        .collect();
    let format = Format::of(&shown_values);
    // A row is wrapped so that a line, indented under "tensor([", stays within 80 columns.
    let per_line = ((80 - "tensor([".len()) / (format.width + 2)).max(1);
    let lines: Vec<String> = shown_rows
        .iter()
        .map(|row| match row {
            None => "...".to_owned(),
            Some(r) => {
                let cells: Vec<String> = cells(*r)
                    .map(|cell| {
                        cell.map_or(" ...".to_owned(), |(r, c)| {
                            format.show(f64::from(rows[r][c]))
                        })
                    })
                    .collect();
                let wrapped: Vec<String> =
                    cells.chunks(per_line).map(|line| line.join(", ")).collect();
                format!("[{}]", wrapped.join(",\n         "))
            }
        })
        .collect();
    format!("tensor([{}])", lines.join(",\n        "))
}

/// The indices that are shown, `None` for the gap.
fn shown(len: usize, summarise: bool) -> Vec<Option<usize>> {
    if summarise && len > 2 * EDGE {
        let head = (0..EDGE).map(Some);
        let tail = (len - EDGE..len).map(Some);
        head.chain([None]).chain(tail).collect()
    } else {
        (0..len).map(Some).collect()
    }
}

/// How every number of a tensor is written, which depends on all of those shown.
struct Format {
    width: usize,
    integers: bool,
    scientific: bool,
}

impl Format {
    fn of(values: &[f64]) -> Format {
        // Zeroes, infinities and NaN have no say in the format, not even in its width.
        let telling: Vec<f64> = values
            .iter()
            .copied()
            .filter(|v| v.is_finite() && *v != 0.0)
            .collect();
        let max = telling.iter().map(|v| v.abs()).fold(0.0, f64::max);
        let min = telling
            .iter()
            .map(|v| v.abs())
            .fold(f64::INFINITY, f64::min);
        let integers = telling.iter().all(|v| v.fract() == 0.0);
        let wide = max / min > 1000.0 || max > 1e8 || (!integers && min < 1e-4);
        let mut format = Format {
            width: 1,
            integers,
            scientific: !telling.is_empty() && wide,
        };
        let widths = telling.iter().map(|&v| format.digits(v).len());
        format.width = widths.max().unwrap_or(format.width);
        format
    }

    fn digits(&self, value: f64) -> String {
        if value.is_nan() {
            return "nan".to_owned();
        }
        if value.is_infinite() {
            return if value > 0.0 { "inf" } else { "-inf" }.to_owned();
        }
        if self.scientific {
            let text = format!("{value:.PRECISION$e}");
            let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
            let (sign, digits) = match exponent.strip_prefix('-') {
                Some(digits) => ('-', digits),
                None => ('+', exponent),
            };
            return format!("{mantissa}e{sign}{digits:0>2}");
        }
        if self.integers {
            return format!("{value:.0}.");
        }
        format!("{value:.PRECISION$}")
    }

    fn show(&self, value: f64) -> String {
        format!("{:>width$}", self.digits(value), width = self.width)
    }
}
#[cfg(test)]
mod tests {
    use super::*;

    /// Three rows of 49152 logits of which only the edges matter.
    fn logits(edges: [[f32; 6]; 3]) -> Vec<f32> {
        let mut values = vec![1e-3; 3 * 2000];
        for (row, edge) in edges.iter().enumerate() {
            values[row * 2000..row * 2000 + 3].copy_from_slice(&edge[..3]);
            values[(row + 1) * 2000 - 3..(row + 1) * 2000].copy_from_slice(&edge[3..]);
        }
        values
    }

    #[test]
    fn logits_look_as_sglang_prints_them() {
        let values = logits([
            [11.5, 2.578125, 6.375, 0.388_671_88, 5.84375, 2.203125],
            [-2.328125, -9.3125, -9.0625, -0.92578125, 0.30078125, -3.375],
            [2.390625, -0.9921875, 1.65625, 4.96875, 5.03125, -2.734375],
        ]);
        assert_eq!(
            matrix(&values, 2000),
            "tensor([[11.5000,  2.5781,  6.3750,  ...,  0.3887,  5.8438,  2.2031],\n        \
             [-2.3281, -9.3125, -9.0625,  ..., -0.9258,  0.3008, -3.3750],\n        \
             [ 2.3906, -0.9922,  1.6562,  ...,  4.9688,  5.0312, -2.7344]])"
        );
        let values = logits([
            [1.109375, -14.0, -11.6875, -9.375, -3.203125, -9.6875],
            [5.09375, -7.4375, -3.46875, -3.84375, 3.234375, -4.0],
            [4.125, -5.0, -1.078125, 2.15625, 5.0, -0.9140625],
        ]);
        assert_eq!(
            matrix(&values, 2000),
            "tensor([[  1.1094, -14.0000, -11.6875,  ...,  -9.3750,  -3.2031,  -9.6875],\n        \
             [  5.0938,  -7.4375,  -3.4688,  ...,  -3.8438,   3.2344,  -4.0000],\n        \
             [  4.1250,  -5.0000,  -1.0781,  ...,   2.1562,   5.0000,  -0.9141]])"
        );
    }

    #[test]
    fn small_matrices_are_shown_whole() {
        assert_eq!(
            matrix(&[1.0, 2.0, 3.0, 4.0], 2),
            "tensor([[1., 2.],\n        [3., 4.]])"
        );
        assert_eq!(
            matrix(&[0.5, -1.0], 1),
            "tensor([[ 0.5000],\n        [-1.0000]])"
        );
        assert_eq!(matrix(&[], 3), "tensor([])");
    }

    /// Against the output of PyTorch 2.11.
    #[test]
    fn corners_are_pytorch_s() {
        let nan = f32::NAN;
        for (values, text) in [
            (&[1e9, 2.0][..], "tensor([[1.0000e+09, 2.0000e+00]])"),
            (&[1e5, 1.5], "tensor([[1.0000e+05, 1.5000e+00]])"),
            (&[1234.0, 1.0], "tensor([[1.2340e+03, 1.0000e+00]])"),
            (&[f32::INFINITY, 1.0], "tensor([[inf, 1.]])"),
            (&[nan, nan], "tensor([[nan, nan]])"),
            (&[0.0, 0.0], "tensor([[0., 0.]])"),
            (&[1e-7, 2e-7], "tensor([[1.0000e-07, 2.0000e-07]])"),
            (&[-1e-5, 0.5], "tensor([[-1.0000e-05,  5.0000e-01]])"),
        ] {
            assert_eq!(matrix(values, 2), text);
        }
        assert_eq!(
            matrix(&[1.0; 20], 20),
            "tensor([[1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1., 1.,\n         1., 1.]])"
        );
        let sevenths: Vec<f32> = (0..1200).map(|i| i as f32 / 7.0).collect();
        assert_eq!(
            matrix(&sevenths, 600),
            "tensor([[0.0000e+00, 1.4286e-01, 2.8571e-01,  ..., 8.5286e+01, 8.5429e+01,\n         8.5571e+01],\n        \
             [8.5714e+01, 8.5857e+01, 8.6000e+01,  ..., 1.7100e+02, 1.7114e+02,\n         1.7129e+02]])"
        );
        assert!(matrix(&sevenths, 4).contains("1.5714e+00],\n        ...,\n        [1.6971e+02"));
    }

    #[test]
    fn wide_ranges_are_scientific() {
        assert_eq!(
            matrix(&[1e-5, 1.0], 2),
            "tensor([[1.0000e-05, 1.0000e+00]])"
        );
        assert_eq!(matrix(&[f32::NAN, 1.5], 2), "tensor([[   nan, 1.5000]])");
    }
}
