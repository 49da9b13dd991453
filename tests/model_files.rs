//! Damaged, incomplete, foreign and hostile model folders: each is refused with a text that says
//! what and where, and none panics.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::fs;
use std::path::{Path, PathBuf};

use semblance::Code;
use semblance::job::Cancel;
use semblance::model::Pipeline;
use semblance::weights::{ModelSource, TensorFile, Tensors};
use serde_json::{Value, json};

const UNET: &str = "unet/diffusion_pytorch_model.safetensors";

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// The tiny model in a folder of its own, after `damage`.
fn damaged(damage: impl FnOnce(&Path)) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tiny = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny");
    copy(&tiny, folder.path());
    damage(folder.path());
    folder
}

#[track_caller]
fn refused(damage: impl FnOnce(&Path), code: Code, words: &[&str]) {
    let folder = damaged(damage);
    let source = ModelSource::Directory(folder.path().into());
    let error = Pipeline::load(&source, &Cancel::new()).expect_err("is refused");
    let text = error.to_string();
    assert_eq!(error.code(), code, "{text}");
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

/// Replaces `key` of a JSON file.
fn set(folder: &Path, file: &str, key: &str, value: Value) {
    let path = folder.join(file);
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json[key] = value;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn an_undamaged_copy_loads_and_has_the_same_hash_in_every_place() {
    let (a, b) = (damaged(|_| ()), damaged(|_| ()));
    let load = |f: &tempfile::TempDir| {
        Pipeline::load(&ModelSource::Directory(f.path().into()), &Cancel::new()).unwrap()
    };
    assert_eq!(load(&a).model_hash(), load(&b).model_hash());
    let c = damaged(|f| {
        set(
            f,
            "scheduler/scheduler_config.json",
            "beta_end",
            json!(0.013),
        )
    });
    assert_ne!(load(&a).model_hash(), load(&c).model_hash());
}

#[test]
fn a_place_without_a_model_is_not_found() {
    for (path, word) in [
        ("/no/such/folder", "no such folder"),
        (
            concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
            "is a file",
        ),
        (
            concat!(env!("CARGO_MANIFEST_DIR"), "/src"),
            "model_index.json",
        ),
    ] {
        let error =
            Pipeline::load(&ModelSource::Directory(path.into()), &Cancel::new()).unwrap_err();
        assert_eq!(error.code(), Code::ModelNotFound);
        assert!(error.to_string().contains(word), "{error}");
    }
}

#[test]
fn other_families_and_options_are_refused_by_name() {
    let index = "model_index.json";
    let xl = json!("StableDiffusionXLPipeline");
    refused(
        |f| set(f, index, "_class_name", xl),
        Code::UnsupportedModel,
        &["StableDiffusionXLPipeline", "SDXL"],
    );
    refused(
        |f| {
            set(
                f,
                index,
                "text_encoder",
                json!(["transformers", "T5EncoderModel"]),
            )
        },
        Code::UnsupportedModel,
        &["text_encoder", "T5EncoderModel", "CLIPTextModel"],
    );
    let unet = "unet/config.json";
    for (key, value, code, word) in [
        (
            "addition_embed_type",
            json!("text_time"),
            Code::UnsupportedModel,
            "SDXL",
        ),
        ("act_fn", json!("gelu"), Code::UnsupportedModel, "silu"),
        (
            "in_channels",
            json!(9),
            Code::UnsupportedModel,
            "inpainting",
        ),
        ("norm_num_groups", json!(0), Code::InvalidModel, "1..=1024"),
        (
            "norm_num_groups",
            json!(7),
            Code::InvalidModel,
            "multiple of norm_num_groups",
        ),
        (
            "attention_head_dim",
            json!(0),
            Code::InvalidModel,
            "divisor",
        ),
        (
            "attention_head_dim",
            json!([4]),
            Code::InvalidModel,
            "attention_head_dim = 1 numbers: must be one number, or 3: one for each block",
        ),
        (
            "attention_head_dim",
            json!([2, 2, 2, 2]),
            Code::InvalidModel,
            "attention_head_dim = 4 numbers",
        ),
        (
            "attention_head_dim",
            json!(-4),
            Code::InvalidModel,
            "attention_head_dim = -4: must be a number, or a list",
        ),
        (
            "layers_per_block",
            json!([1, 2, 1]),
            Code::UnsupportedModel,
            "layers_per_block = [1,2,1]: only the same for every block",
        ),
        (
            "sample_size",
            json!([8, 8]),
            Code::InvalidModel,
            "sample_size = [8,8]: invalid type: sequence",
        ),
        (
            "reverse_transformer_layers_per_block",
            json!([1, 1, 1]),
            Code::UnsupportedModel,
            "reverse_transformer_layers_per_block = [1,1,1]",
        ),
        (
            "mid_block_type",
            Value::Null,
            Code::UnsupportedModel,
            "mid_block_type = null: a network without a middle block",
        ),
        ("block_out_channels", json!([]), Code::InvalidModel, "1..=8"),
        (
            "block_out_channels",
            json!([8, 16, 1u64 << 40]),
            Code::InvalidModel,
            "16384",
        ),
        (
            "block_out_channels",
            json!([8, 16, -1]),
            Code::InvalidModel,
            "config.json",
        ),
        (
            "layers_per_block",
            json!(1_000_000_000u64),
            Code::InvalidModel,
            "1..=16",
        ),
        (
            "down_block_types",
            json!(["DownBlock2D"]),
            Code::InvalidModel,
            "1 blocks",
        ),
        (
            "up_block_types",
            json!(["A", "B", "C"]),
            Code::UnsupportedModel,
            "UpBlock2D",
        ),
        (
            "cross_attention_dim",
            json!(17),
            Code::UnsupportedModel,
            "hidden_size",
        ),
    ] {
        refused(|f| set(f, unet, key, value), code, &[word]);
    }
    let vae = "vae/config.json";
    for (key, value, code) in [
        ("scaling_factor", json!(0), Code::InvalidModel),
        ("latent_channels", json!(0), Code::InvalidModel),
        ("shift_factor", json!(0.1), Code::UnsupportedModel),
    ] {
        refused(|f| set(f, vae, key, value), code, &[key]);
    }
    let scheduler = "scheduler/scheduler_config.json";
    for (key, value, word) in [
        ("beta_start", json!(-1), "beta_start = -1"),
        ("beta_end", json!(2), "beta_end = 2"),
        ("beta_schedule", json!("wavy"), "beta_schedule = \"wavy\""),
        ("num_train_timesteps", json!(0), "1..=100000"),
        ("num_train_timesteps", json!(1u64 << 60), "1..=100000"),
        (
            "prediction_type",
            json!("sample"),
            "prediction_type = \"sample\"",
        ),
        ("timestep_spacing", json!("random"), "random"),
        ("trained_betas", json!([0.5]), "trained_betas"),
    ] {
        refused(
            |f| set(f, scheduler, key, value),
            Code::InvalidModel,
            &[word],
        );
    }
    let late = |f: &Path| {
        set(f, scheduler, "timestep_spacing", json!("leading"));
        set(f, scheduler, "steps_offset", json!(999));
    };
    let words = "scheduler_config.json: steps_offset = 999: must be 0..=49";
    refused(late, Code::InvalidModel, &[words]);
    for (key, value, words) in [
        (
            "_class_name",
            json!("FlowMatchEulerDiscreteScheduler"),
            [
                "_class_name = FlowMatchEulerDiscreteScheduler",
                "those of DDIM",
            ],
        ),
        ("use_flow_sigmas", json!(true), ["use_flow_sigmas", "false"]),
        // diffusers clips where the file does not say.
        (
            "_class_name",
            json!("DDPMScheduler"),
            ["clip_sample", "off"],
        ),
    ] {
        let set = |f: &Path| {
            set(f, scheduler, "clip_sample", Value::Null);
            set(f, scheduler, key, value);
        };
        refused(set, Code::UnsupportedModel, &words);
    }
    let text = "text_encoder/config.json";
    refused(
        |f| set(f, text, "use_attention_mask", json!(true)),
        Code::UnsupportedModel,
        &["use_attention_mask = true: only false"],
    );
    refused(
        |f| set(f, text, "num_attention_heads", json!(3)),
        Code::InvalidModel,
        &["divisor"],
    );
    refused(
        |f| set(f, text, "hidden_act", json!("relu")),
        Code::UnsupportedModel,
        &["quick_gelu"],
    );
}

#[test]
fn missing_and_foreign_files_are_named() {
    let invalid = Code::InvalidModel;
    refused(
        |f| fs::remove_file(f.join(UNET)).unwrap(),
        invalid,
        &[UNET, "no such file"],
    );
    refused(
        |f| fs::remove_file(f.join("vae/config.json")).unwrap(),
        invalid,
        &["vae/config.json"],
    );
    refused(
        |f| fs::rename(f.join(UNET), f.join("unet/diffusion_pytorch_model.bin")).unwrap(),
        Code::UnsupportedModel,
        &[
            "diffusion_pytorch_model.bin",
            "pickle",
            "safe_serialization",
        ],
    );
    for (name, code, word) in [
        (
            "diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
            Code::UnsupportedModel,
            "split over several files",
        ),
        (
            "diffusion_pytorch_model.safetensors.index.fp16.json",
            Code::UnsupportedModel,
            "split over several files",
        ),
        (
            "diffusion_pytorch_model.non_ema.safetensors",
            Code::UnsupportedModel,
            "non_ema.safetensors: the weights have another name",
        ),
        (
            "diffusion_pytorch_model.fp16.bin",
            Code::UnsupportedModel,
            "fp16.bin: the weights are a pickle",
        ),
    ] {
        let rename = |f: &Path| fs::rename(f.join(UNET), f.join("unet").join(name)).unwrap();
        refused(rename, code, &[word]);
    }
    let folder = |f: &Path| {
        fs::remove_file(f.join(UNET)).unwrap();
        fs::create_dir(f.join(UNET)).unwrap();
    };
    refused(folder, invalid, &[UNET, "not a regular file"]);
    for (bytes, word) in [
        (&b"PK\x03\x04 and more bytes"[..], "pickle"),
        (b"\x80\x02}q\x00(X and more", "pickle"),
        (b"GGUF and more bytes", "GGUF"),
        (b"version https://git-lfs", "Git LFS"),
        (b"<!DOCTYPE html>", "web page"),
        (b"short", "5 bytes"),
        (b"", "0 bytes"),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff{}", "header"),
        (b"\x02\0\0\0\0\0\0\0[]", "header"),
        (b"\x02\0\0\0\0\0\0\0{}", "missing"),
    ] {
        refused(
            |f| fs::write(f.join(UNET), bytes).unwrap(),
            invalid,
            &[UNET, word],
        );
    }
    refused(
        |f| fs::write(f.join("unet/config.json"), "[1]").unwrap(),
        invalid,
        &["not a JSON object"],
    );
    refused(
        |f| fs::write(f.join("unet/config.json"), "{").unwrap(),
        invalid,
        &["config.json"],
    );
    refused(
        |f| fs::write(f.join("tokenizer/tokenizer.json"), "{}").unwrap(),
        invalid,
        &["tokenizer.json"],
    );
    let half = |f: &Path| {
        let bytes = fs::read(f.join(UNET)).unwrap();
        fs::write(f.join(UNET), &bytes[..bytes.len() / 2]).unwrap();
    };
    refused(half, invalid, &["the header says"]);
}

/// A safetensors file of one tensor.
fn one_tensor(header: &str, data: &[u8]) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(data);
    file
}

fn open(bytes: Vec<u8>) -> semblance::Result<Vec<f32>> {
    let files: &'static [(&'static str, &'static [u8])] = vec![("t", bytes.leak() as &[u8])].leak();
    TensorFile::open(&ModelSource::Embedded(files), "t")?.get("a", &[2, 2])
}

#[test]
fn tensors_of_every_kind_are_read_and_bad_ones_named() {
    let header = |dtype: &str, shape: &str, to: usize| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[0,{to}]}}}}"#)
    };
    let f32s: Vec<u8> = [1.0_f32, -2.0, 0.5, 4.0]
        .iter()
        .flat_map(|x| x.to_le_bytes())
        .collect();
    let good = open(one_tensor(&header("F32", "[2,2]", 16), &f32s)).unwrap();
    assert_eq!(good, [1.0, -2.0, 0.5, 4.0]);
    let bf16: Vec<u8> = f32s.chunks(4).flat_map(|w| [w[2], w[3]]).collect();
    assert_eq!(
        open(one_tensor(&header("BF16", "[2,2]", 8), &bf16)).unwrap(),
        good
    );
    let f16 = [0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38, 0x00, 0x44];
    assert_eq!(
        open(one_tensor(&header("F16", "[2,2]", 8), &f16)).unwrap(),
        good
    );

    let mut nan = f32s.clone();
    nan[12..].copy_from_slice(&f32::NAN.to_le_bytes());
    let huge = "[4294967296,4294967296,4294967296]";
    for (file, word) in [
        (
            one_tensor(&header("F32", "[2,2]", 16), &nan),
            "number 3 is not finite",
        ),
        (
            one_tensor(&header("F32", "[4]", 16), &f32s),
            "expected [2, 2]",
        ),
        (one_tensor(&header("I32", "[2,2]", 16), &f32s), "I32"),
        (one_tensor(&header("F32", "[2,2]", 12), &f32s), "header"),
        (one_tensor(&header("F32", huge, 16), &f32s), "header"),
        (
            one_tensor(&header("F32", "[2,2]", 16), &f32s[..15]),
            "15 bytes",
        ),
        (
            one_tensor(&header("F32", "[1,1,1,1,1,1,1,2,2]", 16), &f32s),
            "9 dimensions",
        ),
        (one_tensor(&header("F32", "[-2,-2]", 16), &f32s), "header"),
        (
            one_tensor(&header("F32", "[2,2]", 16).replace("\"a\"", "\"b\""), &f32s),
            "missing",
        ),
    ] {
        let error = open(file).unwrap_err();
        assert_eq!(error.code(), Code::InvalidModel);
        assert!(
            error.to_string().contains(word),
            "{word:?} is not in: {error}"
        );
    }
}

#[test]
fn two_thousand_files_with_a_changed_byte_or_a_cut_never_panic() {
    let header = r#"{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"__metadata__":{"format":"pt"}}"#;
    let good = one_tensor(header, &[0; 16]);
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize
    };
    for _ in 0..2000 {
        let mut file = good.clone();
        let at = next() % file.len();
        file[at] = next() as u8;
        if next() % 4 == 0 {
            file.truncate(next() % good.len());
        }
        let _ = open(file);
    }
}

#[test]
fn a_list_of_one_number_for_every_block_is_that_number() {
    let folder = damaged(|f| {
        for key in [
            "layers_per_block",
            "cross_attention_dim",
            "transformer_layers_per_block",
        ] {
            let file = "unet/config.json";
            let json: Value = serde_json::from_slice(&fs::read(f.join(file)).unwrap()).unwrap();
            let one = json.get(key).cloned().unwrap_or(json!(1));
            set(f, file, key, json!([one, one, one]));
        }
    });
    let source = ModelSource::Directory(folder.path().into());
    Pipeline::load(&source, &Cancel::new()).unwrap();
}
