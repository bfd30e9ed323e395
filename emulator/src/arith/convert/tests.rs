//! Every format against its definition, every integer type against the host.

use super::*;
use proptest::prelude::*;

fn cvt(opcode: &str, bits: u64) -> u64 {
    convert(&conversion(opcode), bits)
}

fn conversion(opcode: &str) -> Conversion {
    let mut c = Conversion {
        from: Kind::Unsigned(32),
        to: Kind::Unsigned(32),
        round: Round::Near,
        integral: false,
        ftz: false,
        sat: false,
        satfinite: false,
        relu: false,
    };
    let mut kinds = Vec::new();
    for modifier in opcode.split('.') {
        match modifier {
            "rni" => (c.integral, c.round) = (true, Round::Near),
            "rzi" => (c.integral, c.round) = (true, Round::Zero),
            "rmi" => (c.integral, c.round) = (true, Round::Down),
            "rpi" => (c.integral, c.round) = (true, Round::Up),
            "rz" => c.round = Round::Zero,
            "rn" => {}
            "sat" => c.sat = true,
            "satfinite" => c.satfinite = true,
            "rm" => c.round = Round::Down,
            "rp" => c.round = Round::Up,
            "rna" => c.round = Round::NearAway,
            "relu" => c.relu = true,
            "ftz" => c.ftz = true,
            name => kinds.push(Kind::parse(name).unwrap()),
        }
    }
    (c.to, c.from) = (kinds[0], kinds[1]);
    c
}

proptest! {
    #[test]
    fn as_the_host(bits: u32, wide: u64) {
        let x = f32::from_bits(bits);
        prop_assert_eq!(cvt("rzi.s32.f32", u64::from(bits)) as i32, x as i32);
        prop_assert_eq!(cvt("rzi.u32.f32", u64::from(bits)) as u32, x as u32);
        if !x.is_nan() {
            prop_assert_eq!(cvt("rni.f32.f32", u64::from(bits)) as u32, x.round_ties_even().to_bits());
            prop_assert_eq!(cvt("rmi.f32.f32", u64::from(bits)) as u32, x.floor().to_bits());
            prop_assert_eq!(cvt("rpi.f32.f32", u64::from(bits)) as u32, x.ceil().to_bits());
            prop_assert_eq!(cvt("rzi.s64.f32", u64::from(bits)) as i64, x as i64);
            prop_assert_eq!(cvt("f64.f32", u64::from(bits)), f64::from(x).to_bits());
        }
        prop_assert_eq!(cvt("rn.f32.u64", wide) as u32, (wide as f32).to_bits());
        prop_assert_eq!(cvt("rn.f32.s64", wide) as u32, (wide as i64 as f32).to_bits());
        prop_assert_eq!(cvt("rn.f64.s64", wide), (wide as i64 as f64).to_bits());
        prop_assert_eq!(cvt("rn.f32.s32", wide) as u32, (wide as i32 as f32).to_bits());
        prop_assert_eq!(cvt("s64.s32", wide) as i64, i64::from(wide as i32));
        prop_assert_eq!(cvt("s32.s8", wide) as i32, i32::from(wide as i8));
        prop_assert_eq!(cvt("u16.u32", wide), wide & 0xffff);
        prop_assert_eq!(cvt("sat.u8.s32", wide) as i32, (wide as i32).clamp(0, 255));
    }
}

#[test]
fn special_values() {
    assert_eq!(cvt("rzi.s32.f32", 0x7fc0_0000), 0);
    assert_eq!(cvt("rzi.s64.f32", 0x7fc0_0000), 1 << 63);
    assert_eq!(cvt("rzi.s32.f64", f64::NAN.to_bits()) as u32, 1 << 31);
    assert_eq!(cvt("rzi.u32.f32", u64::from((-5f32).to_bits())), 0);
    assert_eq!(
        cvt("rn.satfinite.e4m3.f32", u64::from(1000f32.to_bits())),
        0x7e
    );
    assert_eq!(
        cvt("sat.f32.f32", u64::from(7f32.to_bits())),
        u64::from(1f32.to_bits())
    );
    assert_eq!(
        cvt("rni.f32.f32", u64::from((-0.25f32).to_bits())),
        0x8000_0000
    );
}

/// A format by its numbers alone: bits of fraction, bits of exponent, shift in storage, the largest number and NaN.
struct Plain {
    name: &'static str,
    fraction: u32,
    exponent: u32,
    shift: u32,
    largest: u64,
    has_infinity: bool,
    nan: u64,
}

#[rustfmt::skip]
const FORMATS: [Plain; 5] = [
    Plain { name: "f16", fraction: 10, exponent: 5, shift: 0, largest: 0x7bff, has_infinity: true, nan: 0x7fff },
    Plain { name: "bf16", fraction: 7, exponent: 8, shift: 0, largest: 0x7f7f, has_infinity: true, nan: 0x7fff },
    Plain { name: "tf32", fraction: 10, exponent: 8, shift: 13, largest: 0x7f7f_e000, has_infinity: true, nan: 0x7fff_ffff },
    Plain { name: "e4m3", fraction: 3, exponent: 4, shift: 0, largest: 0x7e, has_infinity: false, nan: 0x7f },
    Plain { name: "e5m2", fraction: 2, exponent: 5, shift: 0, largest: 0x7b, has_infinity: true, nan: 0x7f },
];

impl Plain {
    /// The value of positive finite bits, by the definition.
    fn value(&self, bits: u64) -> f64 {
        let bits = bits >> self.shift;
        let exponent = (bits >> self.fraction) as i32;
        let fraction = (bits & ((1 << self.fraction) - 1)) as f64 / f64::from(1 << self.fraction);
        let bias = (1 << (self.exponent - 1)) - 1;
        let (lead, exponent) = if exponent == 0 {
            (0.0, 1)
        } else {
            (1.0, exponent)
        };
        (lead + fraction) * 2f64.powi(exponent - bias)
    }

    fn sign(&self) -> u64 {
        1 << (self.fraction + self.exponent + self.shift)
    }
}

/// Numbers of a format in order, every `step`th, with what lies between each and the next: all roundings, both signs.
fn check_narrowing(format: &Plain, step: usize) {
    let rounds = ["rn", "rz", "rna", "rp", "rm", "rn.satfinite", "rn.relu"];
    let conversions = rounds.map(|round| conversion(&format!("{round}.{}.f32", format.name)));
    let unit = 1u64 << format.shift;
    let infinity = if format.has_infinity {
        format.largest + unit
    } else {
        format.nan
    };
    for low in (0..=format.largest / unit).step_by(step).map(|n| n * unit) {
        let is_last = low == format.largest;
        let high = if is_last { infinity } else { low + unit };
        let from = format.value(low);
        // Beyond the largest number: where the next one would be.
        let to = if is_last {
            from + (from - format.value(low - unit))
        } else {
            format.value(high)
        };
        let is_even = (low / unit).is_multiple_of(2);
        let middle = (from + to) / 2.0;
        let middle = middle as f32;
        for x in [
            from as f32,
            (from as f32).next_up(),
            middle.next_down(),
            middle,
            middle.next_up(),
            (to as f32).next_down(),
        ] {
            let wide = f64::from(x);
            if !(from..to).contains(&wide) || !x.is_finite() {
                continue;
            }
            let is_exact = wide == from;
            let is_past = wide > (from + to) / 2.0;
            let is_middle = wide == (from + to) / 2.0;
            let near = if is_past || is_middle && !is_even {
                high
            } else {
                low
            };
            let away = if is_past || is_middle { high } else { low };
            let up = if is_exact { low } else { high };
            let finite = |bits: u64| {
                if bits == infinity {
                    format.largest
                } else {
                    bits
                }
            };
            let expected = [
                (near, near),
                (low, low),
                (away, away),
                (up, low),
                (low, up),
                (finite(near), finite(near)),
                (near, 0),
            ];
            for ((round, conversion), (plus, minus)) in
                rounds.iter().zip(&conversions).zip(expected)
            {
                let found = convert(conversion, u64::from(x.to_bits()));
                assert_eq!(found, plus, "{round}.{} {x:e}", format.name);
                let found = convert(conversion, u64::from((-x).to_bits()));
                let minus = if *round == "rn.relu" {
                    minus
                } else {
                    minus | format.sign()
                };
                assert_eq!(found, minus, "{round}.{} -{x:e}", format.name);
            }
        }
    }
}

#[test]
fn narrowing_is_exact() {
    for format in &FORMATS {
        check_narrowing(format, if format.shift > 0 { 7 } else { 1 });
        let opcode = |round: &str| format!("{round}.{}.f32", format.name);
        for nan in [0x7f80_0001, 0xffff_ffff] {
            assert_eq!(cvt(&opcode("rn"), nan), format.nan);
            assert_eq!(cvt(&opcode("rn.satfinite.relu"), nan), format.nan);
        }
        let infinity = u64::from(f32::INFINITY.to_bits());
        let expected = if format.has_infinity {
            format.largest + (1 << format.shift)
        } else {
            format.nan
        };
        assert_eq!(cvt(&opcode("rn"), infinity), expected);
        assert_eq!(cvt(&opcode("rn.satfinite"), infinity), format.largest);
        assert_eq!(cvt(&opcode("rn.satfinite.relu"), infinity | 1 << 31), 0);
    }
}

#[test]
fn widening_is_exact() {
    for format in &FORMATS {
        for bits in (0..=format.largest >> format.shift).map(|n| n << format.shift) {
            let expected = format.value(bits);
            for (bits, expected) in [(bits, expected), (bits | format.sign(), -expected)] {
                assert_eq!(
                    cvt(&format!("f64.{}", format.name), bits),
                    expected.to_bits()
                );
                assert_eq!(
                    cvt(&format!("f32.{}", format.name), bits),
                    u64::from((expected as f32).to_bits())
                );
            }
        }
        assert_eq!(
            cvt(&format!("f32.{}", format.name), format.nan),
            0x7fff_ffff
        );
    }
    // As the packed conversions have it.
    for bits in 0..=0x7e {
        assert_eq!(
            cvt("rn.f16.e4m3", bits),
            cvt("rn.f16.f32", cvt("f32.e4m3", bits))
        );
    }
}

#[test]
fn halves_to_integers() {
    for format in &FORMATS[..2] {
        let to_integers = integer_conversions(format.name);
        let integral =
            roundings(0.0).map(|(round, _)| conversion(&format!("{round}.{0}.{0}", format.name)));
        let narrow = conversion(&format!("rn.{}.f64", format.name));
        for bits in 0..=format.largest {
            for (bits, x) in [
                (bits, format.value(bits)),
                (bits | format.sign(), -format.value(bits)),
            ] {
                check_integers(&to_integers, bits, x);
                // Integral values stay in the format, whose numbers beyond its fraction are all integral.
                for (integral, (_, rounded)) in integral.iter().zip(roundings(x)) {
                    let expected = convert(&narrow, rounded.to_bits());
                    assert_eq!(convert(integral, bits), expected, "{integral:?} {x:e}");
                }
            }
        }
        assert_eq!(cvt(&format!("rni.s16.{}", format.name), format.nan), 0);
        assert_eq!(
            cvt(&format!("rni.u64.{}", format.name), format.nan),
            1 << 63
        );
    }
}

fn roundings(x: f64) -> [(&'static str, f64); 4] {
    [
        ("rni", x.round_ties_even()),
        ("rzi", x.trunc()),
        ("rmi", x.floor()),
        ("rpi", x.ceil()),
    ]
}

const INTEGERS: [&str; 8] = ["s8", "u8", "s16", "u16", "s32", "u32", "s64", "u64"];

/// To every integer type in every rounding.
fn integer_conversions(from: &str) -> Vec<Conversion> {
    let rounds = roundings(0.0).map(|(round, _)| round);
    let of = |round| INTEGERS.map(|to| conversion(&format!("{round}.{to}.{from}")));
    rounds.into_iter().flat_map(of).collect()
}

/// `as` saturates as the manual asks.
fn check_integers(conversions: &[Conversion], bits: u64, x: f64) {
    let expected = roundings(x).map(|(_, x)| {
        [
            x as i8 as u64,
            x as u8 as u64,
            x as i16 as u64,
            x as u16 as u64,
            x as i32 as u64,
            x as u32 as u64,
            x as i64 as u64,
            x as u64,
        ]
    });
    for (conversion, expected) in conversions.iter().zip(expected.as_flattened()) {
        assert_eq!(convert(conversion, bits), *expected, "{conversion:?} {x:e}");
    }
}

/// Whether a float is the directed or nearest rounding of an integer, by its neighbours.
fn rounds_to(value: i128, round: &str, [below, found, above]: [f64; 3], is_even: bool) -> bool {
    let exact = |x: f64| x as i128; // No fractions in what an integer rounds to.
    let (low, high) = (value - exact(below), exact(above) - value);
    match round {
        "rm" => exact(found) <= value && high > 0,
        "rp" => exact(found) >= value && low > 0,
        "rz" if value < 0 => exact(found) >= value && low > 0,
        "rz" => exact(found) <= value && high > 0,
        _ => {
            let error = (exact(found) - value).abs();
            let other = low.min(high);
            error < other || error == other && is_even
        }
    }
}

proptest! {
    #[test]
    fn floats_to_integers(bits: u32, wide: u64, small in -70_000.0f64..70_000.0) {
        for x in [f64::from_bits(wide), small, f64::from(f32::from_bits(bits))] {
            if !x.is_nan() {
                check_integers(&integer_conversions("f64"), x.to_bits(), x);
                let narrow = x as f32;
                check_integers(&integer_conversions("f32"), u64::from(narrow.to_bits()), f64::from(narrow));
                for (round, rounded) in roundings(x) {
                    prop_assert_eq!(cvt(&format!("{round}.f64.f64"), x.to_bits()), rounded.to_bits());
                }
            }
        }
        // Flushed before, so that no direction moves them from zero.
        let subnormal = u64::from(bits & 0x807f_ffff);
        prop_assert_eq!(cvt("rpi.ftz.s32.f32", subnormal), 0);
        prop_assert_eq!(cvt("rmi.ftz.s32.f32", subnormal), 0);
        prop_assert_eq!(cvt("rpi.ftz.f32.f32", subnormal), subnormal & 1 << 31);
        prop_assert_eq!(cvt("ftz.f64.f32", subnormal), (subnormal & 1 << 31) << 32);
        let tiny = f64::from(f32::from_bits(bits & 0x807f_ffff));
        prop_assert_eq!(cvt("rn.ftz.f32.f64", tiny.to_bits()), subnormal & 1 << 31);
    }

    #[test]
    fn integers_to_floats(value: u64, shift in 0u32..64) {
        let value = value >> shift;
        for (from, exact) in [
            ("u8", i128::from(value as u8)), ("s8", i128::from(value as i8)),
            ("u16", i128::from(value as u16)), ("s16", i128::from(value as i16)),
            ("u32", i128::from(value as u32)), ("s32", i128::from(value as i32)),
            ("u64", i128::from(value)), ("s64", i128::from(value as i64)),
        ] {
            for round in ["rn", "rz", "rm", "rp"] {
                let bits = cvt(&format!("{round}.f32.{from}"), value);
                let x = f32::from_bits(bits as u32);
                // Near zero the neighbours have fractions; there the result has to be exact.
                let around = [x.next_down(), x, x.next_up()].map(f64::from);
                let is_right = if exact.abs() < 1 << 24 { exact == x as i128 } else { rounds_to(exact, round, around, bits & 1 == 0) };
                prop_assert!(is_right, "{round}.f32.{from} {exact}");
                let x = f64::from_bits(cvt(&format!("{round}.f64.{from}"), value));
                let around = [x.next_down(), x, x.next_up()];
                let is_right = if exact.abs() < 1 << 53 { exact == x as i128 } else { rounds_to(exact, round, around, x.to_bits() & 1 == 0) };
                prop_assert!(is_right, "{round}.f64.{from} {exact}");
            }
            if exact.abs() <= 2048 {
                prop_assert_eq!(cvt(&format!("rn.f16.{from}"), value), cvt("rn.f16.f64", (exact as f64).to_bits()));
            }
            let unit = if exact > 0 { 1.0f64 } else { 0.0 };
            prop_assert_eq!(cvt(&format!("rn.sat.f16.{from}"), value), cvt("rn.f16.f64", unit.to_bits()));
        }
    }

    #[test]
    fn integers_to_integers(value: u64) {
        let name = |signed: bool, width: u32| format!("{}{width}", if signed { 's' } else { 'u' });
        for (from_signed, from) in [8, 16, 32, 64].into_iter().flat_map(|width| [(false, width), (true, width)]) {
            let mask = (1i128 << from) - 1;
            let mut exact = i128::from(value) & mask;
            if from_signed && exact >> (from - 1) == 1 {
                exact -= mask + 1;
            }
            for (signed, to) in [8, 16, 32, 64].into_iter().flat_map(|width| [(false, width), (true, width)]) {
                let (low, high) = if signed { (-(1i128 << (to - 1)), (1i128 << (to - 1)) - 1) } else { (0, (1i128 << to) - 1) };
                let names = format!("{}.{}", name(signed, to), name(from_signed, from));
                prop_assert_eq!(cvt(&format!("sat.{names}"), value), exact.clamp(low, high) as u64);
                let mut wrapped = exact.rem_euclid(1 << to);
                if wrapped > high {
                    wrapped -= 1 << to;
                }
                prop_assert_eq!(cvt(&names, value), wrapped as u64);
            }
        }
    }

    #[test]
    fn saturation_of_floats(bits: u32) {
        let x = f32::from_bits(bits);
        let expected = if x.is_nan() || x <= 0.0 { 0.0 } else { x.min(1.0) };
        prop_assert_eq!(cvt("sat.f32.f32", u64::from(bits)), u64::from(expected.to_bits()));
        prop_assert_eq!(cvt("sat.f64.f32", u64::from(bits)), f64::from(expected).to_bits());
        let half = cvt("rn.f16.f32", u64::from(expected.to_bits()));
        prop_assert_eq!(cvt("rn.sat.f16.f32", u64::from(bits)), half);
    }
}
