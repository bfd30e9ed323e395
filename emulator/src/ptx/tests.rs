//! Text as the compiler writes it, and text as nobody should.

use super::ast::*;
use super::parser::parse;

const MODULE: &str = r#"
.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 1024 .b8 sm[];
.global .align 4 .b8 t[4] = {1, 2, 0xff, 4};
.visible .entry k(
    .param .u64 .ptr .global .align 16 k_param_0,
    .param .align 64 .b8 k_param_1[128]
)
.maxntid 384, 1, 1
.minnctapersm 1
{
    .reg .pred %p<3>;
    .reg .b32 %r<9>;
    .loc 1 7 5
    ld.param.u64 %rd1, [k_param_0+8];
    .loc 1 8 5, function_name $L__info_string0, inlined_at 1 9 3
    { .reg .pred P1; LAB_WAIT: @!P1 bra LAB_WAIT; }
    shfl.sync.bfly.b32 %r2|%p1, %r1, 16, 31, -1;
    mov.f32 %r3, 0f3F800000;
    cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, %r3}], [%r4+-8];
    ret;
}
.file 1 "a.cu"
.section .debug_str { $L__info_string0: .b8 1, 2 }
"#;

#[test]
fn a_module_as_the_compiler_writes_it() {
    let ast = parse(MODULE).unwrap();
    assert_eq!(ast.version, (9, 0));
    assert_eq!(ast.target, "sm_90a");
    assert_eq!(ast.files, [(1, "a.cu".to_owned())]);
    assert_eq!(ast.variables.len(), 2);
    assert_eq!(ast.variables[0].count, None);
    let kernel = &ast.functions[0];
    assert_eq!(kernel.params.len(), 2);
    assert_eq!(kernel.params[1].count, Some(128));
    assert_eq!(kernel.max_threads, Some([384, 1, 1]));
    let body = kernel.body.as_ref().unwrap();
    let Statement::Instruction(load) = &body[2] else {
        panic!("{:?}", body[2])
    };
    assert_eq!(
        (load.opcode.as_str(), load.loc),
        ("ld.param.u64", Loc { file: 1, line: 7 })
    );
    let Statement::Instruction(tma) = &body[6] else {
        panic!("{:?}", body[6])
    };
    assert_eq!(tma.operands.len(), 3);
    assert_eq!(tma.loc, Loc { file: 1, line: 8 });
    let Operand::Address(barrier) = &tma.operands[2] else {
        panic!()
    };
    assert_eq!(barrier.offset, -8);
}

#[test]
fn errors_name_the_line() {
    let error = parse(".version 9.0\n.target sm_80\n.entry k( { ret; }").unwrap_err();
    assert!(error.to_string().contains("line 3"), "{error}");
    assert!(parse("").is_err());
    assert!(parse("\u{7f}ELF").is_err());
}

/// A module around a body.
fn body(text: &str) -> Vec<Statement> {
    let text =
        format!(".version 9.0\n.target sm_80\n.address_size 64\n.entry k()\n{{\n{text}\n}}\n");
    let mut ast = parse(&text).unwrap();
    ast.functions.remove(0).body.unwrap()
}

fn instruction(text: &str) -> Instruction {
    match body(text).remove(0) {
        Statement::Instruction(instruction) => instruction,
        other => panic!("{other:?}"),
    }
}

fn variable(text: &str) -> Variable {
    parse(&format!(".version 9.0\n.target sm_80\n{text}"))
        .unwrap()
        .variables
        .remove(0)
}

fn bits(variable: &Variable) -> Vec<u64> {
    let bits = |init: &Init| match init {
        Init::Bits(bits) => *bits,
        Init::Address(..) => panic!("{init:?}"),
    };
    variable.init.iter().map(bits).collect()
}

fn refuses(text: &str, line: u32, wanted: &str) {
    let error = parse(text).unwrap_err().to_string();
    assert!(error.contains(&format!("PTX line {line}: ")), "{error}");
    assert!(error.contains(wanted), "{error}");
}

#[test]
fn directives_without_spaces() {
    // As the bf16 header of CUDA has it.
    let statements =
        body("{.reg.b32 a; .reg.pred p,q; .local.align 8 .b8 x[16]; add .s32 a, a, 1;}");
    let Statement::Block(inner) = &statements[0] else {
        panic!("{statements:?}")
    };
    assert!(
        matches!(&inner[0], Statement::Register { ty, name, count: None } if ty == "b32" && name == "a")
    );
    assert!(matches!(&inner[3], Statement::Variable(v) if v.align == 8 && v.count == Some(16)));
    assert!(matches!(&inner[4], Statement::Instruction(i) if i.opcode == "add.s32"));
}

#[test]
fn operands_of_every_form() {
    let int = |value: i64| Operand::Int(value as u64);
    let name = |name: &str| Operand::Name(name.to_owned());
    let i = instruction("x a, -1, 0x10U, -(2+3)*4, 1<<4|1, ~0, 07, 0b101, 7 % 4, 1-2-3, 7/2;");
    let values = [-1, 16, -20, 17, -1, 7, 5, 3, -4, 3].map(int);
    assert_eq!(i.operands[0], name("a"));
    assert_eq!(i.operands[1..], values);
    let i = instruction("x 0f3F800000, -0f3F800000, 1.5, -1.5e-3, 0d3FF0000000000000, 0fffc00000;");
    let floats = [
        Operand::F32(0x3f80_0000),
        Operand::F32(0xbf80_0000),
        Operand::F64(1.5f64.to_bits()),
        Operand::F64((-1.5e-3f64).to_bits()),
        Operand::F64(1f64.to_bits()),
        Operand::F32(0xffc0_0000),
    ];
    assert_eq!(i.operands, floats);
    let i = instruction("@!%p1 x %r1|%p2, _|p, {a, _, 1}, !%p3, sym+4, _;");
    assert_eq!(i.guard, Some(("%p1".to_owned(), true)));
    let pair = |a, b| Operand::Pair(Box::new(a), Box::new(b));
    assert_eq!(i.operands[0], pair(name("%r1"), name("%p2")));
    assert_eq!(i.operands[1], pair(Operand::Sink, name("p")));
    assert_eq!(
        i.operands[2],
        Operand::Vector(vec![name("a"), Operand::Sink, int(1)])
    );
    assert_eq!(i.operands[3], Operand::Not("%p3".to_owned()));
    assert!(matches!(&i.operands[4], Operand::Address(a) if a.offset == 4));
    assert_eq!(i.operands[5], Operand::Sink);
    let i = instruction("x [%rd1 + -8], [%rd1+4*2+1], [16], [sym - 4], [m, {%r1, %r2}], [%r1];");
    let offset = |index: usize| match &i.operands[index] {
        Operand::Address(address) => address.offset,
        other => panic!("{other:?}"),
    };
    assert_eq!([0, 1, 2, 3, 4].map(offset), [-8, 9, 16, -4, 0]);
    let i = instruction("call.uni (retval0), f, (param0, param1);");
    assert_eq!(
        i.operands[2],
        Operand::List(vec![name("param0"), name("param1")])
    );
}

#[test]
fn labels_tables_and_scopes() {
    let text = "{ .reg .pred P1; W: @P1 bra D; bra W; D: }\n$L_x: .branchtargets\n a,\n b;\n\
        p0: .callprototype (.param .b32 _) _ (.param .b32 _);\nbrx.idx %r1, $L_x; .pragma \"nounroll\";\na: b: ret;";
    let statements = body(text);
    assert!(matches!(&statements[0], Statement::Block(inner) if inner.len() == 5));
    assert!(
        matches!(&statements[1], Statement::Targets(name, to) if name == "$L_x" && *to == ["a", "b"])
    );
    assert!(matches!(&statements[2], Statement::Instruction(i) if i.line == 11));
    assert!(matches!(&statements[4], Statement::Label(name) if name == "b"));
}

#[test]
fn variables_and_their_contents() {
    let v = variable(".global .align 8 .f64 d[3] = {0d3FB999999999999A, 1.5, -2};");
    assert_eq!(
        bits(&v),
        [0.1f64.to_bits(), 1.5f64.to_bits(), (-2f64).to_bits()]
    );
    let v = variable(".visible .const .f32 f[] = {0f3F800000, -1.5};");
    assert_eq!(
        (bits(&v), v.count),
        (vec![0x3f80_0000, 0xbfc0_0000], Some(2))
    );
    let v = variable(".weak .global .v4 .f32 f = {1.0, 2.0, 3.0, 4.0};");
    assert_eq!(
        (v.element, v.count, v.align, v.init.len()),
        (4, Some(4), 16, 4)
    );
    let v = variable(".common .global .b8 m[2][3] = {{1, 2, 3}, {4, -5, 6}};");
    assert_eq!((v.count, bits(&v)[4]), (Some(6), -5i64 as u64));
    let v = variable(".extern .shared .align 1024 .b8 dyn[];");
    assert!(v.is_extern && v.count.is_none());
    let v = variable(".global .attribute(.managed) .align 8 .u64 p = generic(q)+8;");
    assert!(matches!(&v.init[0], Init::Address(name, 8) if name == "q"));
    let text =
        ".version 9.0\n.extern .global .b32 a;\n.global .b32 a = 1;\n.extern .global .b32 a;";
    let ast = parse(text).unwrap();
    assert!(ast.variables.len() == 1 && !ast.variables[0].is_extern);
}

#[test]
fn functions_and_their_directives() {
    let text = ".version 8.7\n.target sm_90a, debug\n\
        .extern .func (.param .b32 r) f (.param .b64 a, .param .align 8 .b8 b[16]);\n\
        .weak .func (.param .b32 r) f (.param .b64 a, .param .align 8 .b8 b[16]) .noreturn { ret; }\n\
        .visible .entry k (.param .u64 .ptr .global .align 4 p)\n.explicitcluster\n.reqnctapercluster 2, 1, 1\n\
        .reqntid 64\n.maxnreg 40\n{ .loc 1 2 3 ret; }\n;\n.alias g, f;\n.section .debug_info { .b8 1 }";
    let ast = parse(text).unwrap();
    assert_eq!((ast.version, ast.functions.len()), ((8, 7), 2));
    assert!(ast.functions[0].body.is_some());
    let kernel = &ast.functions[1];
    assert_eq!(kernel.required_cluster, Some([2, 1, 1]));
    assert_eq!(
        (kernel.required_threads, kernel.max_registers),
        (Some([64, 1, 1]), Some(40))
    );
    assert_eq!((kernel.params[0].element, kernel.params[0].align), (8, 4));
}

#[test]
fn what_is_wrong_and_where() {
    let head = ".version 9.0\n.target sm_80\n";
    refuses("", 1, "expected a .version");
    refuses(
        &format!("{head}.entry k() {{\nadd.s32 a b;"),
        4,
        "expected `,` or `;`, found `b`",
    );
    refuses(
        &format!("{head}.entry k() {{ {{ ret;\n"),
        3,
        "expected `}`, found the end",
    );
    refuses(
        &format!("{head}.global .b8 a[99999999999999];"),
        3,
        "less memory for `a`",
    );
    refuses(
        &format!("{head}.global .b8 a[1<<40][1<<40];"),
        3,
        "less memory for `a`",
    );
    refuses(
        &format!("{head}.global .b8 a[1] = {{1, 2}};"),
        3,
        "fewer values for `a`",
    );
    refuses(
        &format!("{head}.global .b8 a;\n.global .b8 a;"),
        4,
        "second one",
    );
    refuses(
        &format!("{head}.func f() {{}}\n.func f() {{}}"),
        4,
        "second one",
    );
    refuses(&format!("{head}.global .b8 a = 1/0;"), 3, "divisor");
    refuses(
        &format!("{head}.global .u8 a[2] = {{0xFF(a), 2}};"),
        3,
        "not supported",
    );
    refuses(
        &format!("{head}.entry k() {{ .reg .b32 %r<4294967296>; }}"),
        3,
        "fewer registers",
    );
    refuses(
        &format!("{head}.global .b9 a;"),
        3,
        "expected a type, found `.b9`",
    );
    refuses(&format!("{head}.func f(.reg .b32 a);"), 3, "not supported");
    refuses(&format!("{head}/* a\n"), 3, "`*/`");
    refuses(&format!("{head}\n.file 1 \"a\n\""), 4, "end this string");
    refuses(&format!("{head}é"), 3, "0xc3");
}

#[test]
fn nesting_and_lists_have_bounds() {
    let head = ".version 9.0\n.target sm_80\n.entry k() ";
    let many = |text: &str| text.repeat(100_000);
    for text in [
        many("{"),
        format!("{{ x {};", many("{")),
        format!("{{ x {};", many("a|")),
        format!("{{ x {};", many("[a,")),
        format!("{{ x {};", many("-")),
        format!("{{ x {};", many("(")),
        format!("{{ x {};", many("1*(")),
        format!("{{ x {{ {} 1}}; }}", many("a, ")),
        format!("{{ x {} 1; }}", many("a, ")),
        format!("{{}} .global .b8 a[1] = {};", many("{")),
        format!("{{}} {} .b8 a;", many(".visible ")),
        format!("{{}} .section a {}", many("{")),
    ] {
        assert!(parse(&format!("{head}{text}")).is_err(), "{}", &text[..40]);
    }
    // Long, but flat: fine.
    let text = format!("{{ mov.u32 a, 0{}; }}", "+1".repeat(1000));
    assert!(parse(&format!("{head}{text}")).is_ok());
}
