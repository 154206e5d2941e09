use std::time::Instant;

use crate::fixture::Fixture;

/// Not a measurement, but a bound that only a mistake exceeds; the times are printed for people.
#[tokio::test(flavor = "multi_thread")]
async fn a_small_build_is_quick() {
    let Some(fixture) = Fixture::with_busybox().await else { return };
    let dockerfile = "FROM busybox AS make\nWORKDIR /src\nCOPY . .\nRUN cat page.html > out\nFROM busybox\nCOPY --from=make /src/out /www/index.html\nCMD [\"sh\"]\n";
    let mut times = Vec::new();
    for page in ["one", "one", "two"] {
        let request = fixture.request(&[("Dockerfile", dockerfile), ("page.html", page)]).await;
        let begun = Instant::now();
        fixture.build(&request).await.unwrap();
        times.push(begun.elapsed());
    }
    let inputs = fixture.request(&[("Dockerfile", dockerfile), ("page.html", "two")]).await;
    let begun = Instant::now();
    fixture.builder.recipe(&inputs, &fixture.images).await.unwrap();
    times.push(begun.elapsed());
    #[allow(clippy::print_stderr)]
    {
        eprintln!(
            "cold {:?}, cached {:?}, one file edited {:?}, recipe alone {:?}",
            times[0], times[1], times[2], times[3]
        );
    }
    assert!(times[1].as_secs() < 5, "{times:?}");
}
