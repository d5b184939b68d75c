//! Tests that cannot be made on a machine say so. The tracer's tests use this file, too.

use std::io::Write;

/// Says that a test could not be made here. Where everything should be there, as in CI, that is a failure.
#[expect(clippy::disallowed_methods, reason = "the test command speaks to the tests by this variable")]
pub(crate) fn skip(why: &str) {
    assert!(std::env::var_os("MINJAIL_TESTS_NO_SKIP").is_none(), "nothing may be skipped here, but: {why}");
    // Not by `eprintln!`, which the test harness keeps back from a test that passes.
    writeln!(std::io::stderr(), "skipped: {why}").ok();
}
