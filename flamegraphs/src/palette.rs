//! Colours: one hue per phase and per block, so that the parts of a step are told apart at a glance; all light enough for
//! black text, and of different lightness in grey.

use inferno::flamegraph::color::{Color, PaletteMap};
use stepscope_profiler::Phase;

use crate::blocks::block_of;
use crate::stacks::Tree;

const STEP: Color = rgb(222, 222, 216);
const HOST: Color = rgb(226, 184, 136);
const FORWARD: Color = rgb(247, 226, 160);
const ATTENTION: Color = rgb(176, 218, 206);
const MLP: Color = rgb(160, 184, 230);
const OUTSIDE_LAYERS: Color = rgb(226, 170, 160);
/// Kernels run under several blocks, but inferno knows one colour per name.
const KERNEL: Color = rgb(234, 234, 230);
const GAP: Color = rgb(246, 246, 244);

const fn rgb(r: u8, g: u8, b: u8) -> Color {
    Color { r, g, b }
}

/// The colour of every frame, by its name, as inferno asks for it.
pub(crate) fn palette(root: &Tree) -> PaletteMap {
    let mut colors = PaletteMap::default();
    root.visit(&mut |path, tree| {
        if colors.get(&tree.name).is_none() {
            colors.insert(
                &tree.name,
                shade(color_of(path, tree.children.is_empty()), &tree.name),
            );
        }
    });
    colors.insert("", STEP); // the root, which inferno labels `all`
    colors
}

/// The colour a little darker or lighter by a hash of the name (FNV-1a), so that neighbours of one hue stay apart.
fn shade(color: Color, name: &str) -> Color {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let change = (hash >> 32) % 29;
    let shaded = |channel: u8| (u64::from(channel) + change).saturating_sub(18).min(255) as u8;
    rgb(shaded(color.r), shaded(color.g), shaded(color.b))
}

fn color_of(path: &str, is_leaf: bool) -> Color {
    let frames: Vec<&str> = path.split(';').collect();
    let last = frames.last().copied().unwrap_or_default();
    if last.starts_with('(') {
        return GAP;
    }
    let is_phase = |name: &str| Phase::ALL.iter().any(|phase| phase.name() == name);
    let Some(phase) = frames.iter().position(|name| is_phase(name)) else {
        return STEP;
    };
    let inside = &frames[phase + 1..];
    if is_leaf && inside.len() >= 2 {
        return KERNEL;
    }
    match frames[phase] {
        "forward" => match inside.iter().find(|name| !name.starts_with("layer_")) {
            None => FORWARD,
            Some(&"attention") => ATTENTION,
            Some(&"mlp") => MLP,
            Some(operation) => match block_of(operation) {
                Some("attention") => ATTENTION,
                Some(_) => MLP,
                None => OUTSIDE_LAYERS,
            },
        },
        "other" => GAP,
        _ => HOST,
    }
}
