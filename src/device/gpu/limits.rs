//! What kernels do not take, told with the nearest that works.

/// `n` is a multiple of `of` and at most `most`; `what` names it, e.g. "a norm's width".
pub(crate) fn multiple(what: &str, n: usize, of: usize, most: usize) -> Result<(), String> {
    if n > 0 && n.is_multiple_of(of) && n <= most {
        return Ok(());
    }
    let nearest = (n.saturating_add(of / 2) / of * of).clamp(of, most / of * of);
    let limit = if most == usize::MAX { String::new() } else { format!(" up to {most}") };
    Err(format!(
        "{what} is {n}, and the GPU kernels take multiples of {of}{limit}: {nearest} works"
    ))
}

#[cfg(test)]
mod tests {
    use super::multiple;

    #[test]
    fn what_is_refused_names_the_nearest_that_works() {
        assert_eq!(multiple("a width", 8, 8, 64), Ok(()));
        assert_eq!(multiple("a width", 64, 8, 64), Ok(()));
        for (n, nearest) in [(0, 8), (3, 8), (11, 8), (12, 16), (65, 64), (1000, 64)] {
            let why = multiple("a width", n, 8, 64).unwrap_err();
            assert!(why.ends_with(&format!("up to 64: {nearest} works")), "{why}");
        }
        let why = multiple("a width", 12, 8, usize::MAX).unwrap_err();
        assert!(why.ends_with("multiples of 8: 16 works"), "{why}");
    }
}
