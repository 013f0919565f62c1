//! "Did you mean …": the nearest of a set of known words.

/// The candidate that `word` was most likely meant to be, if any is near enough.
///
/// Near means an optimal-string-alignment distance (insertion, deletion, substitution, or a swap of neighbours, each
/// counting one) of at most a third of the longer word, and at least one. Case is ignored. Ties go to the earlier
/// candidate.
pub fn suggest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let wanted = word.to_lowercase();
    candidates
        .into_iter()
        .map(|candidate| (distance(&wanted, &candidate.to_lowercase()), candidate))
        .filter(|(d, candidate)| *d <= allowance(&wanted, candidate))
        .min_by_key(|(d, _)| *d)
        .map(|(_, candidate)| candidate)
}

fn allowance(word: &str, candidate: &str) -> usize {
    (word.chars().count().max(candidate.chars().count()) / 3).max(1)
}

fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    // Three rolling rows: a swap of neighbours looks two rows back.
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let substitution = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = substitution.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_slips_of_the_finger_and_nothing_else() {
        let known = ["bandwidth", "subchannels", "fading", "se_max"];
        assert_eq!(suggest("bandwith", known), Some("bandwidth"));
        assert_eq!(suggest("Subchanels", known), Some("subchannels"));
        assert_eq!(suggest("fadign", known), Some("fading"));
        assert_eq!(suggest("altitude", known), None);
        assert_eq!(suggest("", known), None);
        assert_eq!(suggest("bs11", ["bs1", "bs2"]), Some("bs1"));
    }

    #[test]
    fn distances_by_hand() {
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("ab", "ba"), 1);
        assert_eq!(distance("", "abc"), 3);
    }
}
