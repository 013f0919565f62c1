use std::fs;

use safetensors::SafeTensors;

use super::*;

fn identity() -> Identity {
    Identity { fingerprint: "f".into(), seed: 4, dataset: "synthetic".into() }
}

fn layout() -> Vec<TensorLayout> {
    vec![("a.bias".into(), vec![2]), ("a.weight".into(), vec![2, 3])]
}

fn global(round: u64) -> Global {
    Global { round, parameters: (0..8).map(|i| i as f32 + round as f32).collect(), residual: Vec::new() }
}

fn shelf(dir: &Path) -> Shelf {
    Shelf::new(dir, identity(), layout())
}

#[test]
fn the_newest_comes_back_and_few_are_kept() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    assert!(shelf.newest().unwrap().0.is_none());
    let rounded = Global { residual: vec![0.5; 8], ..global(9) };
    (0..9).for_each(|round| shelf.save(&global(round)).unwrap());
    shelf.save(&rounded).unwrap();
    assert_eq!(shelf.newest().unwrap().0, Some(rounded));
    let kept: Vec<u64> = of_node(dir.path()).into_iter().map(|(round, _)| round).collect();
    assert_eq!(kept, [7, 8, 9]);
    let checked = check(&of_node(dir.path())[0].1, &identity(), &layout()).unwrap();
    assert_eq!(checked, (7, global(7).digest().to_hex().to_string()));
}

#[test]
fn a_damaged_one_is_passed_over_for_the_one_before() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    (1..=3).for_each(|round| shelf.save(&global(round)).unwrap());
    let paths: Vec<PathBuf> = of_node(dir.path()).into_iter().map(|(_, path)| path).collect();
    // A file cut off, and one with a bit that has turned in its last parameter.
    let whole = fs::read(&paths[2]).unwrap();
    fs::write(&paths[2], &whole[..whole.len() - 5]).unwrap();
    let mut turned = fs::read(&paths[1]).unwrap();
    *turned.last_mut().unwrap() ^= 1;
    fs::write(&paths[1], turned).unwrap();
    let (found, damaged) = shelf.newest().unwrap();
    assert_eq!(found, Some(global(1)));
    assert!(matches!(damaged[..], [CheckpointError::Damaged { .. }, CheckpointError::Digest { .. }]));
}

#[test]
fn one_of_something_else_is_refused_and_says_why() {
    let dir = tempfile::tempdir().unwrap();
    shelf(dir.path()).save(&global(1)).unwrap();
    let refused =
        |identity, layout| Shelf::new(dir.path(), identity, layout).newest().unwrap_err().to_string();
    let seed = refused(Identity { seed: 5, ..identity() }, layout());
    assert!(seed.contains("its seed is 4, here it is 5"), "{seed}");
    let topology = refused(Identity { fingerprint: "g".into(), ..identity() }, layout());
    assert!(topology.contains("its topology is f"), "{topology}");
    let model = refused(identity(), vec![("a.bias".into(), vec![2]), ("a.weight".into(), vec![6])]);
    assert!(model.contains("its model is one where it has shape [2, 3]"), "{model}");
    let model = refused(identity(), vec![("b.bias".into(), vec![8])]);
    assert!(model.contains("its model is one without it"), "{model}");
    let path = &of_node(dir.path())[0].1;
    let bytes = fs::read(path).unwrap();
    let at = bytes.windows(20).position(|part| part == b"\"dtwn.checkpoint\":\"1").unwrap();
    let mut newer = bytes;
    newer[at + 19] = b'2';
    fs::write(path, newer).unwrap();
    let version = shelf(dir.path()).newest().unwrap_err().to_string();
    assert!(version.contains("its version of checkpoints is 2, here it is 1"), "{version}");
}

#[test]
fn a_checkpoint_that_cannot_be_written_leaves_the_old_one() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    shelf.save(&global(1)).unwrap();
    // Where the next one is to be prepared, something stands that cannot be written to.
    fs::create_dir(dir.path().join("checkpoints/round-000002.partial")).unwrap();
    assert!(matches!(shelf.save(&global(2)), Err(CheckpointError::Write { .. })));
    assert_eq!(shelf.newest().unwrap().0, Some(global(1)));
}

#[test]
fn what_a_bs_rounded_off_is_found_by_its_round() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    (1..=5).for_each(|round| shelf.save_residual(round, &[round as f32; 8]).unwrap());
    assert_eq!(shelf.residual(4).unwrap(), Some(vec![4.0; 8]));
    assert_eq!(shelf.residual(1).unwrap(), None);
}

#[test]
fn a_residual_in_which_a_bit_has_turned_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    let turn = || {
        let path = of_node(dir.path()).pop().unwrap().1;
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 4;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    shelf.save(&Global { residual: vec![0.5; 8], ..global(1) }).unwrap();
    shelf.newest().unwrap().0.unwrap();
    // Tensors lie in the order of their names: what was rounded off comes last, and these are the lowest bits of its last number.
    turn();
    let (found, damaged) = shelf.newest().unwrap();
    assert!(found.is_none() && matches!(damaged[..], [CheckpointError::Digest { .. }]), "{damaged:?}");
    shelf.save_residual(1, &[0.5; 8]).unwrap();
    turn();
    assert!(matches!(shelf.residual(1), Err(CheckpointError::Digest { .. })));
}

#[test]
fn what_would_spoil_models_is_not_gone_on_from() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    let mut spoilt = [0.5; 8];
    spoilt[3] = f32::NAN;
    for (bad, why) in [(&spoilt[..], "not finite"), (&[0.5; 7], "7 numbers where"), (&[], "0 numbers where")]
    {
        shelf.save_residual(1, bad).unwrap();
        let error = shelf.residual(1).unwrap_err().to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn an_export_holds_the_model_alone() {
    let dir = tempfile::tempdir().unwrap();
    let rounded = Global { residual: vec![0.5; 8], ..global(3) };
    shelf(dir.path()).save(&rounded).unwrap();
    let out = dir.path().join("model.safetensors");
    let said = export(&of_node(dir.path())[0].1, &out, &layout()).unwrap();
    assert_eq!((said.round, &said.tensors), (3, &layout()));
    let bytes = fs::read(&out).unwrap();
    let read = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(read.len(), 2);
    assert_eq!(read.tensor("a.weight").unwrap().shape(), [2, 3]);
    assert_eq!(read.tensor("a.bias").unwrap().data(), bytes_of(&[3.0, 4.0]));
}

#[test]
fn a_model_of_other_tensors_is_neither_gone_on_from_nor_exported() {
    let names = |names: &[&str], shape: &[usize]| -> Vec<TensorLayout> {
        names.iter().map(|name| ((*name).to_owned(), shape.to_vec())).collect()
    };
    for (theirs, said) in [
        (names(&["a.bias", "b.weight"], &[4]), "one where it has shape [4]"),
        (names(&["a.weight", "b.bias"], &[2, 2]), "one without it"),
        ([layout(), names(&["b.bias"], &[0])].concat(), "one with b.bias"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        Shelf::new(dir.path(), identity(), theirs).save(&global(1)).unwrap();
        let path = &of_node(dir.path())[0].1;
        let out = dir.path().join("model.safetensors");
        let refused = [
            check(path, &identity(), &layout()).unwrap_err(),
            export(path, &out, &layout()).unwrap_err(),
            shelf(dir.path()).newest().unwrap_err(),
        ];
        for error in refused {
            assert!(matches!(error, CheckpointError::Other { what: "model", .. }), "{error}");
            assert!(error.to_string().contains(said), "{error}");
        }
        assert!(!out.exists());
    }
}

#[test]
fn a_model_that_is_not_finite_is_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let shelf = shelf(dir.path());
    shelf.save(&global(1)).unwrap();
    let mut spoilt = global(2);
    spoilt.parameters[5] = f32::INFINITY;
    shelf.save(&spoilt).unwrap();
    let path = &of_node(dir.path())[1].1;
    let error = check(path, &identity(), &layout()).unwrap_err().to_string();
    assert!(error.contains("a.weight holds a number that is not finite"), "{error}");
    assert!(export(path, &dir.path().join("model.safetensors"), &layout()).is_err());
    let (found, damaged) = shelf.newest().unwrap();
    assert_eq!((found, damaged.len()), (Some(global(1)), 1));
}
