//! Branches, calls, scopes, barriers, fences, copies and `printf`.
#![allow(clippy::unwrap_used)] // a test

mod support;

use stepscope_emulator::ErrorKind;
use support::opcode::{FEW, L, P, W, check, refusal, rows};
use support::{Arg, Bench};

fn kernel(before: &str, body: &str) -> String {
    format!(
        ".version 9.0\n.target sm_90a\n.address_size 64\n{before}\n.visible .entry k(.param .u64 out, .param .u32 n)\n{{\n.reg .b64 %o, %x<9>;\n.reg .b32 %r<20>, %i, %n;\n.reg .pred %p<9>;\nld.param.u64 %o, [out];\nld.param.u32 %n, [n];\nmov.u32 %i, %tid.x;\nmad.wide.u32 %o, %i, 4, %o;\n{body}\nst.global.u32 [%o], %r0;\nret;\n}}\n"
    )
}

fn run(before: &str, body: &str, threads: u32, n: u32) -> Vec<u32> {
    let bench = Bench::new(&kernel(before, body));
    let out = bench.empty::<u32>(threads as usize);
    bench.run(
        "k",
        [1, 1, 1],
        [threads, 1, 1],
        &[Arg::U64(out), Arg::U32(n)],
    );
    bench.read(out, threads as usize)
}

#[test]
fn branches_by_table() {
    let body = "rem.u32 %r1, %i, 5;
        ts: .branchtargets one, two, three, one, four;
        brx.idx %r1, ts;
        one: mov.u32 %r0, 1; bra.uni done;
        two: mov.u32 %r0, 2; bra done;
        three: add.u32 %r0, %i, 1000; bra done;
        four: { .reg .b32 %r0x; mov.u32 %r0x, 44; mov.u32 %r0, %r0x; }
        done:";
    let expected: Vec<u32> = (0..64)
        .map(|i| [1, 2, i + 1000, 1, 44][i as usize % 5])
        .collect();
    assert_eq!(run("", body, 64, 0), expected);
}

#[test]
fn loops_that_end_at_different_times() {
    let body = "mov.u32 %r0, 0; mov.u32 %r1, %i;
        again: setp.eq.u32 %p1, %r1, 0; @%p1 bra over;
        add.u32 %r0, %r0, %r1; sub.u32 %r1, %r1, 1; and.b32 %r2, %r1, 3; setp.ne.u32 %p2, %r2, 0; @%p2 bra again;
        add.u32 %r0, %r0, 100; bra again;
        over:";
    let expected: Vec<u32> = (0..96)
        .map(|i: u32| i * (i + 1) / 2 + 100 * i.div_ceil(4))
        .collect();
    assert_eq!(run("", body, 96, 0), expected);
}

#[test]
fn calls() {
    let before = ".func (.param .b32 result) twice(.param .b32 x)
        { .reg .b32 %r<3>; ld.param.b32 %r1, [x]; add.u32 %r2, %r1, %r1; st.param.b32 [result], %r2; ret; }
        .func (.param .align 16 .b8 result[16]) pair(.param .align 16 .b8 x[16], .param .b64 y)
        { .reg .b64 %d<4>; .reg .pred %p; ld.param.b64 %d1, [x+8]; ld.param.b64 %d2, [y]; st.param.v2.b64 [result], {%d2, %d1};
          setp.gt.u64 %p, %d2, 10; @%p ret; st.param.b64 [result], -1; ret; }
        .func nothing() { ret; }
        .func (.param .b32 result) other(.param .b32 x);
        .alias other, twice;
        .func (.param .b32 result) nested(.param .b32 x)
        { .reg .b32 %r<3>; .local .b32 kept; ld.param.b32 %r1, [x]; st.local.b32 [kept], %r1;
          { .param .b32 a; .param .b32 b; st.param.b32 [a], %r1; call.uni (b), twice, (a); ld.param.b32 %r2, [b]; }
          ld.local.b32 %r1, [kept]; add.u32 %r2, %r2, %r1; st.param.b32 [result], %r2; ret; }";
    let body = "{ .param .b32 a; .param .b32 b; st.param.b32 [a], %i; call (b), nested, (a); ld.param.b32 %r1, [b]; }
        { .param .align 16 .b8 a[16]; .param .b64 y; .param .align 16 .b8 b[16];
          cvt.u64.u32 %x1, %i; add.u64 %x2, %x1, 500; st.param.v2.b64 [a], {0, %x2}; st.param.b64 [y], %x1;
          call.uni (b), pair, (a, y); ld.param.v2.b64 {%x3, %x4}, [b]; }
        call nothing;
        { .param .b32 a; .param .b32 b; st.param.b32 [a], %i; call.uni (b), other, (a); ld.param.b32 %r5, [b]; }
        mov.u32 %r6, 0;
        setp.lt.u32 %p1, %i, 7;
        { .param .b32 a; .param .b32 b; st.param.b32 [a], 21; st.param.b32 [b], 0; @%p1 call.uni (b), twice, (a); ld.param.b32 %r6, [b]; }
        cvt.u32.u64 %r2, %x3; cvt.u32.u64 %r3, %x4;
        mul.lo.u32 %r0, %r1, 1000; add.u32 %r0, %r0, %r2; add.u32 %r0, %r0, %r3; add.u32 %r0, %r0, %r5; add.u32 %r0, %r0, %r6;";
    let expected: Vec<u32> = (0..32u32)
        .map(|i| {
            let first = if i > 10 { i } else { u32::MAX };
            (3 * i * 1000)
                .wrapping_add(first)
                .wrapping_add(i + 500)
                .wrapping_add(2 * i)
                .wrapping_add(if i < 7 { 42 } else { 0 })
        })
        .collect();
    assert_eq!(run(before, body, 32, 0), expected);
}

#[test]
fn scopes_hide_names() {
    let body = "mov.u32 %r0, 1; mov.u32 %r1, 0;
        { .reg .b32 %r0; .reg .pred P; mov.u32 %r0, 5; setp.eq.u32 P, %r0, 5; @P bra DONE; mov.u32 %r1, 99; DONE: add.u32 %r1, %r1, %r0; }
        { .reg .b32 t<2>; .reg .pred P; mov.u32 t0, 7; setp.eq.u32 P, t0, 8; @!P bra DONE; mov.u32 %r1, 99; DONE: { .reg .b32 t0; mov.u32 t0, 100; add.u32 %r1, %r1, t0; } add.u32 %r1, %r1, t0; }
        add.u32 %r0, %r0, %r1;";
    assert_eq!(run("", body, 32, 0), [1 + 5 + 107; 32]);
}

#[test]
fn barriers_that_reduce() {
    let body = "setp.lt.u32 %p1, %i, %n;
        bar.red.popc.u32 %r1, 0, %p1;
        bar.red.and.pred %p2, 1, 96, %p1;
        barrier.red.or.pred %p3, 2, !%p1;
        barrier.cta.red.popc.aligned.u32 %r2, 3, 96, !%p1;
        selp.u32 %r3, 1000, 0, %p2; selp.u32 %r4, 2000, 0, %p3;
        mad.lo.u32 %r0, %r2, 10000, %r1; add.u32 %r0, %r0, %r3; add.u32 %r0, %r0, %r4;";
    for n in [0, 1, 40, 95, 96] {
        let expected = (96 - n) * 10_000 + n + if n == 96 { 1000 } else { 2000 };
        assert_eq!(run("", body, 96, n), [expected; 96]);
    }
}

#[test]
fn barriers_with_numbers_in_registers() {
    // Producers arrive without waiting, consumers wait.
    let body = "{ .shared .align 4 .b32 s[64]; mov.u32 %r1, s; and.b32 %r2, %i, 31; mad.lo.u32 %r3, %r2, 4, %r1;
        mov.u32 %r4, 5; mov.u32 %r5, 64; mov.u32 %r0, 0; setp.ge.u32 %p1, %i, 32; @%p1 bra consumer;
        st.shared.u32 [%r3], %i; bar.arrive %r4, %r5; bra end;
        consumer: bar.sync %r4, %r5; ld.shared.u32 %r0, [%r3];
        end: }";
    let expected: Vec<u32> = (0..64).map(|i: u32| i.saturating_sub(32)).collect();
    assert_eq!(run("", body, 64, 0), expected);
    for (body, what) in [
        ("bar.sync 16;", "barrier 16 does not exist"),
        ("bar.sync 1, 33;", "multiple of 32"),
        ("bar.sync 1, 0;", "multiple of 32"),
    ] {
        let bench = Bench::new(&kernel("", &format!("{body}\nmov.u32 %r0, 0;")));
        let out = bench.empty::<u32>(64);
        let error = bench
            .launch("k", [1, 1, 1], [64, 1, 1], &[Arg::U64(out), Arg::U32(0)])
            .failure
            .unwrap();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[test]
fn fences_and_hints_change_nothing() {
    for text in [
        "membar.cta;",
        "membar.gl;",
        "membar.sys;",
        "fence.sc.cta;",
        "fence.acq_rel.gpu;",
        "fence.sc.sys;",
        "fence.acq_rel.cluster;",
        "fence.proxy.alias;",
        "fence.proxy.async;",
        "fence.proxy.async.shared::cta;",
        "fence.proxy.async.global;",
        "fence.mbarrier_init.release.cluster;",
        "fence.proxy.tensormap::generic.release.gpu;",
        "pmevent 1;",
        "nanosleep.u32 20;",
        "griddepcontrol.wait;",
        "griddepcontrol.launch_dependents;",
        "bar.warp.sync -1;",
    ] {
        assert_eq!(
            run(
                "",
                &format!("mov.u32 %r0, 3;\n{text}\nadd.u32 %r0, %r0, 1;"),
                32,
                0
            ),
            [4; 32],
            "{text}"
        );
    }
}

#[test]
fn asynchronous_copies() {
    let before = ".global .align 16 .b8 source[2048];";
    // Whole copies, a source that is shorter, and one that is ignored.
    for (operands, expected) in [
        ("16", [7, 8, 9, 10]),
        ("16, 16", [7, 8, 9, 10]),
        ("16, 6", [7, 8, 0, 0]),
        ("16, 0", [0; 4]),
        ("16, %p1", [7, 8, 9, 10]),
        ("16, !%p1", [0; 4]),
        ("16, %x3", [7, 8, 9, 10]),
    ] {
        let hint = if operands.ends_with("%x3") {
            ".L2::cache_hint"
        } else {
            ""
        };
        let body = format!(
            "{{ .shared .align 16 .b8 s[512]; mov.u64 %x1, source; mad.wide.u32 %x1, %i, 16, %x1; mov.u64 %x2, s; mad.wide.u32 %x2, %i, 16, %x2;
            createpolicy.fractional.L2::evict_first.b64 %x3, 1.0; setp.ne.u32 %p1, %n, 0;
            mov.b32 %r1, 7; mov.b32 %r2, 8; mov.b32 %r3, 9; mov.b32 %r4, 10;
            st.global.v4.u32 [%x1], {{%r1, %r2, %r3, %r4}};
            cp.async.cg.shared.global{hint}.L2::128B [%x2], [%x1], {operands};
            cp.async.commit_group; cp.async.wait_group 0;
            ld.shared.v4.u32 {{%r5, %r6, %r7, %r8}}, [%x2];
            mad.lo.u32 %r0, %r5, 1000, %r6; mad.lo.u32 %r0, %r0, 1000, %r7; mad.lo.u32 %r0, %r0, 10, %r8; }}"
        );
        let [a, b, c, d] = expected.map(|x: u32| if operands == "16, 6" && x == 8 { 8 } else { x });
        let want = (a * 1000 + b)
            .wrapping_mul(1000)
            .wrapping_add(c)
            .wrapping_mul(10)
            .wrapping_add(d);
        assert_eq!(run(before, &body, 32, 0), [want; 32], "{operands}");
    }
}

#[test]
fn exits_and_guards() {
    // Threads that leave early keep what they stored; those that go on do not wait for them.
    let body = "mov.u32 %r0, 5; st.global.u32 [%o], 9; setp.lt.u32 %p1, %i, 10; @%p1 exit; setp.gt.u32 %p2, %i, 20; @%p2 ret;";
    let expected: Vec<u32> = (0..32)
        .map(|i| if (10..=20).contains(&i) { 5 } else { 9 })
        .collect();
    assert_eq!(run("", body, 32, 0), expected);
    // A guard that is false everywhere, and its opposite.
    check(
        "setp.ne.b32 %tp0, %a, %a;\n@%tp0 trap;\nmov.b32 %d, %a;"
            .replace("@%tp0 trap;\n", "")
            .as_str(),
        &[W],
        &[W],
        &rows(&[FEW], 0),
        |r| vec![r[0]],
    );
    let body = "setp.eq.u32 %p1, %n, 77; mov.u32 %r0, 1; @%p1 trap; @!%p1 mov.u32 %r0, 2;";
    assert_eq!(run("", body, 32, 0), [2; 32]);
}

#[test]
fn printf_formats() {
    let before = ".extern .func (.param .b32 r) vprintf (.param .b64 f, .param .b64 a);
        .global .align 1 .b8 format[64] = {37,100,32,37,53,117,124,37,45,53,120,124,37,48,52,88,32,37,99,37,37,32,37,115,32,37,108,108,100,32,37,46,51,102,32,37,101,32,37,112,10,0};
        .global .align 1 .b8 text[4] = {97, 98, 99, 0};";
    let body = "{ .local .align 8 .b8 a[80]; .param .b64 f; .param .b64 v; .param .b32 r; setp.ne.u32 %p1, %i, 3; @%p1 bra over;
        st.local.u32 [a], -5; st.local.u32 [a+4], 42; st.local.u32 [a+8], 255; st.local.u32 [a+12], 171; st.local.u32 [a+16], 122;
        mov.u64 %x1, text; cvta.global.u64 %x1, %x1; st.local.u64 [a+24], %x1; st.local.u64 [a+32], -1234567890123;
        mov.f64 %x2, 0d400921FB54442D18; st.local.f64 [a+40], %x2; st.local.f64 [a+48], %x2; st.local.u64 [a+56], 4096;
        mov.u64 %x3, format; cvta.global.u64 %x3, %x3; st.param.b64 [f], %x3; mov.u64 %x4, a; cvta.local.u64 %x4, %x4; st.param.b64 [v], %x4;
        call.uni (r), vprintf, (f, v); ld.param.b32 %r1, [r];
        over: mov.u32 %r0, 0; }";
    let bench = Bench::new(&kernel(before, body));
    let out = bench.empty::<u32>(32);
    let report = bench.run("k", [1, 1, 1], [32, 1, 1], &[Arg::U64(out), Arg::U32(0)]);
    assert_eq!(
        report.output,
        "-5    42|ff   |00AB z% abc -1234567890123 3.142 3.141593e+00 0x1000\n"
    );
}

#[test]
fn what_is_refused_is_named() {
    for (text, what) in [
        ("bar.sync.xyz 0;", "the modifier .xyz"),
        ("bar.red.xor.pred %tp0, 0, %tp1;", "the modifier .xor"),
        ("barrier 0;", "none of .sync, .arrive and .red"),
        ("bar.arrive 0;", "an arrival without a thread count"),
        ("bra.xyz nowhere;", "the modifier .xyz"),
        ("bra nowhere;", "no label `nowhere`"),
        ("brx.idx %t0, nowhere;", "no table `nowhere`"),
        ("call nothing;", "no function `nothing`"),
        ("frobnicate.u32 %d, %a;", "unknown instruction"),
        (
            "tex.2d.v4.f32.f32 {%d, %d, %d, %d}, [t, {%a, %b}];",
            "unknown instruction",
        ),
    ] {
        let error = refusal(text, &[W, W, P], &[W, L]);
        let opcode = text.split([' ', ';']).next().unwrap();
        assert!(
            error.contains(what) && error.contains(opcode),
            "{text}: {error}"
        );
    }
}
