//! `scripts/cifar10`: what it leaves behind has been checked, and is checked again before it is taken for the data set.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts");
const FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];

fn fetch(script: &Path, archive: &Path, into: &Path) -> Output {
    let url = format!("file://{}", archive.display());
    Command::new(script).args(["--url", &url]).arg(into).output().unwrap()
}

#[track_caller]
fn says(output: &Output, code: i32, words: &str) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(said.contains(words), "{said}");
}

/// An archive laid out as the official one, with a record a file.
fn small_archive(dir: &Path) -> PathBuf {
    let folder = dir.join("cifar-10-batches-bin");
    fs::create_dir(&folder).unwrap();
    for (number, name) in FILES.into_iter().enumerate() {
        fs::write(folder.join(name), [number as u8; 3073]).unwrap();
    }
    fs::write(folder.join("batches.meta.txt"), "airplane\n").unwrap();
    let archive = dir.join("small.tar.gz");
    let packed =
        Command::new("tar").arg("-czf").arg(&archive).arg("-C").arg(dir).arg("cifar-10-batches-bin").status();
    assert!(packed.unwrap().success());
    archive
}

/// The script, with another archive for the official one: it takes only one with its checksum.
fn script_for(archive: &Path, dir: &Path) -> PathBuf {
    let sum = Command::new("md5sum").arg(archive).output().unwrap().stdout;
    let sum = String::from_utf8(sum[..32].to_vec()).unwrap();
    let text = fs::read_to_string(format!("{SCRIPTS}/cifar10")).unwrap();
    let official = ["md5=c32a1d4ab5d03f1284b67883e8d87530", "file_bytes=30730000"];
    assert!(official.iter().all(|line| text.contains(line)));
    let own = text.replace(official[0], &format!("md5={sum}")).replace(official[1], "file_bytes=3073");
    fs::copy(format!("{SCRIPTS}/common.sh"), dir.join("common.sh")).unwrap();
    let script = dir.join("cifar10");
    // The copy keeps the permission to run it.
    fs::copy(format!("{SCRIPTS}/cifar10"), &script).unwrap();
    fs::write(&script, own).unwrap();
    script
}

#[test]
fn another_archive_is_refused_and_nothing_is_left_of_it() {
    let dir = tempfile::tempdir().unwrap();
    let archive = small_archive(dir.path());
    let script = Path::new(SCRIPTS).join("cifar10");
    let into = dir.path().join("data");
    says(&fetch(&script, &archive, &into), 1, "is not the official archive");
    assert_eq!(fs::read_dir(&into).unwrap().count(), 0, "something is left");
    // Files of the right length are not the data set.
    for name in FILES {
        fs::File::create(into.join(name)).unwrap().set_len(30_730_000).unwrap();
    }
    says(&fetch(&script, &archive, &into), 1, "is not the official archive");
}

#[test]
fn what_was_unpacked_is_fetched_again_once_it_has_changed() {
    let dir = tempfile::tempdir().unwrap();
    let archive = small_archive(dir.path());
    let script = script_for(&archive, dir.path());
    let into = dir.path().join("data");
    let (away, nowhere) = (dir.path().join("away"), dir.path().join("nowhere"));
    says(&fetch(&script, &archive, &into), 0, "CIFAR-10 is in");
    let whole = || {
        FILES
            .iter()
            .enumerate()
            .all(|(number, name)| fs::read(into.join(name)).is_ok_and(|bytes| bytes == [number as u8; 3073]))
    };
    assert!(whole());
    fs::rename(&archive, &away).unwrap();
    says(&fetch(&script, &nowhere, &into), 0, "already");
    let mut bytes = fs::read(into.join(FILES[2])).unwrap();
    bytes[3000] ^= 1;
    fs::write(into.join(FILES[2]), bytes).unwrap();
    says(&fetch(&script, &nowhere, &into), 1, "cannot fetch");
    says(&fetch(&script, &away, &into), 0, "CIFAR-10 is in");
    assert!(whole(), "a changed file is still there");
    fs::remove_file(into.join(FILES[5])).unwrap();
    says(&fetch(&script, &nowhere, &into), 1, "cannot fetch");
}
