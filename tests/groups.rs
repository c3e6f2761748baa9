//! The split that template versions carry themselves (`ab_test_group` and what stands beside it), written
//! through the admin API: in force while no A/B test decides, on each store.

use std::collections::BTreeMap;

use chaperone::experiment::{Purpose, bucket};
use chaperone::words::digest::sha256_hex;
use serde_json::{Value, json};

use crate::control::{Setting, command, everywhere};
use crate::harness::{Sidecar, TempDir, eventually, pair};
use crate::lifecycle::{draft, served, versions};

const USERS: u32 = 40;

fn path(id: &str) -> String {
    format!("/templates/{id}")
}

/// The version and group of each user: groups share the buckets in the order of their names.
fn split(groups: &[(&str, u32, &str)], rest: &str) -> BTreeMap<String, (String, String)> {
    let salt = format!("groups-{}", &sha256_hex(b"default/t")[..40]);
    let of = |user: &str| {
        let at = bucket(Purpose::Variant, &salt, user);
        let mut upper = 0;
        for (group, percent, version) in groups {
            upper += percent * 1000;
            if at < upper {
                return ((*version).to_owned(), (*group).to_owned());
            }
        }
        (rest.to_owned(), String::new())
    };
    (0..USERS)
        .map(|number| format!("user-{number}"))
        .map(|user| (user.clone(), of(&user)))
        .collect()
}

impl Setting<'_> {
    /// What all users see, once the reader has heard of it.
    async fn splits(&self, what: &str, expected: &BTreeMap<String, (String, String)>) {
        eventually(what, async || {
            for (user, expected) in expected {
                if served(self.reader, "t", user).await != *expected {
                    return None;
                }
            }
            Some(())
        })
        .await;
    }
}

async fn refused(sidecar: &Sidecar, status: u16, id: &str, change: Value, words: &str) {
    let problem = sidecar.must(status, "PUT", &path(id), &change).await;
    assert!(problem["detail"].as_str().unwrap().contains(words), "{change}: {problem}");
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_split_the_users_as_an_admin_says_while_no_test_decides() {
    everywhere(async |setting| {
        let writer = setting.writer;
        let ids = versions(writer, "t", &["one {who}", "two {who}", "three {who}"]).await;
        let nobody = split(&[], "t@1");
        setting.splits("the active version serves all", &nobody).await;

        // In place, because it is no content; and in force only when it is activated.
        let change = json!({"ab_test_group": "b", "traffic_percentage": 30, "reason": "try it"});
        let second = writer.must(200, "PUT", &path(&ids[1]), &change).await;
        let told = (&second["version"], &second["ab_test_group"], &second["traffic_percentage"]);
        assert_eq!(told, (&json!(2), &json!("b"), &json!(30.0)));
        let share = json!({"ab_test_group": "a", "traffic_percentage": 20.5});
        writer.must(200, "PUT", &path(&ids[2]), &share).await;
        setting.splits("nothing is in force yet", &nobody).await;
        for id in &ids[1..] {
            let on =
                writer.must(200, "POST", &format!("{}/activate", path(id)), &Value::Null).await;
            assert_eq!(on["is_active"], true);
        }
        let first = writer.must(200, "GET", &path(&ids[0]), &Value::Null).await;
        assert_eq!(first["is_active"], true, "a group serves beside the active version");
        writer.must(200, "PUT", &path(&ids[2]), &json!({"traffic_percentage": 20})).await;
        let both = split(&[("a", 20, "t@3"), ("b", 30, "t@2")], "t@1");
        setting.splits("both groups and the rest", &both).await;
        assert!(both.values().filter(|one| one.1.is_empty()).count() < 30);

        // A test takes over, and what it leaves behind is as before.
        let test = draft(writer, "t", &ids[..2], &json!({})).await;
        writer.must(200, "POST", &format!("{test}/start"), &Value::Null).await;
        eventually("the test decides", async || {
            let arm = served(setting.reader, "t", "user-1").await.1;
            ["control", "variant_a"].contains(&arm.as_str()).then_some(())
        })
        .await;
        writer.must(200, "POST", &format!("{test}/stop"), &json!({"reason": "over"})).await;
        setting.splits("the groups decide again", &both).await;

        // The next version of a group takes the place of the one before.
        let next =
            writer.must(201, "PUT", &path(&ids[1]), &json!({"template_text": "2 {who}"})).await;
        assert_eq!((&next["ab_test_group"], &next["is_active"]), (&json!("b"), &json!(false)));
        let next = next["id"].as_str().unwrap();
        writer.must(200, "POST", &format!("{}/activate", path(next)), &Value::Null).await;
        let before = writer.must(200, "GET", &path(&ids[1]), &Value::Null).await;
        assert_eq!(before["is_active"], false);
        setting
            .splits("its next version", &split(&[("a", 20, "t@3"), ("b", 30, "t@4")], "t@1"))
            .await;

        // Dates act by themselves; a group that is over keeps its buckets from the others.
        let over = json!({"ab_test_end_date": "2020-01-01T00:00:00Z"});
        writer.must(200, "PUT", &path(&ids[2]), &over).await;
        let mut late = split(&[("a", 20, "t@1"), ("b", 30, "t@4")], "t@1");
        late.values_mut().filter(|one| one.1 == "a").for_each(|one| one.1 = String::new());
        setting.splits("one is over", &late).await;

        // The pointer to the active version never moved, so there is nothing to roll back.
        writer.must(200, "POST", &format!("{}/deactivate", path(&ids[2])), &Value::Null).await;
        let moves = writer.must(200, "GET", "/templates/t/activations", &Value::Null).await;
        assert_eq!(moves["items"].as_array().unwrap().len(), 1, "{moves}");
        let audit = writer.must(200, "GET", "/audit?limit=500", &Value::Null).await;
        let entries = audit["items"].as_array().unwrap();
        let count = |action: &str| entries.iter().filter(|one| one["action"] == action).count();
        let told = ["template.edit", "template.activate", "template.deactivate"].map(count);
        assert_eq!(told, [4, 4, 1], "{audit}");
        assert!(entries.iter().any(|one| one["reason"] == "try it"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_version_may_not_say_of_its_group_is_refused() {
    let (_upstream, sidecar) = pair().await;
    let ids = versions(&sidecar, "t", &["one {who}", "two {who}", "three {who}"]).await;
    let new = json!({"name": "u", "template_text": "x", "traffic_percentage": 5});
    let alone = sidecar.must(422, "POST", "/templates", &new).await;
    assert!(alone["detail"].as_str().unwrap().starts_with("ab_test_group: is missing"), "{alone}");
    for (change, words) in [
        (json!({"traffic_percentage": 5}), "ab_test_group: is missing"),
        (json!({"ab_test_group": "a b"}), "ab_test_group: must have 1 to 255"),
        (
            json!({"ab_test_group": "a", "traffic_percentage": 101}),
            "traffic_percentage: must be from 0 to 100",
        ),
        (json!({"ab_test_group": "a", "traffic_percentage": 0.0001}), "at most 3 decimals"),
        (
            json!({"ab_test_group": "a", "ab_test_start_date": "2026-02-01T00:00:00Z",
                "ab_test_end_date": "2026-01-01T00:00:00Z"}),
            "ab_test_end_date: must be later",
        ),
    ] {
        refused(&sidecar, 422, &ids[1], change, words).await;
    }
    // The one that serves the rest stays without a group.
    let active = json!({"ab_test_group": "a", "traffic_percentage": 5});
    refused(&sidecar, 409, &ids[0], active, "deactivate it before").await;

    let activate = |id: &str| format!("{}/activate", path(id));
    sidecar.must(200, "PUT", &path(&ids[1]), &json!({"ab_test_group": "a"})).await;
    let shareless = sidecar.must(422, "POST", &activate(&ids[1]), &Value::Null).await;
    assert!(shareless["detail"].as_str().unwrap().starts_with("traffic_percentage: is missing"));
    sidecar.must(200, "PUT", &path(&ids[1]), &json!({"traffic_percentage": 70})).await;
    sidecar.must(200, "POST", &activate(&ids[1]), &Value::Null).await;
    let second = json!({"ab_test_group": "b", "traffic_percentage": 40.5});
    sidecar.must(200, "PUT", &path(&ids[2]), &second).await;
    let many = sidecar.must(409, "POST", &activate(&ids[2]), &Value::Null).await;
    assert!(many["detail"].as_str().unwrap().contains("110.5 %"), "{many}");
    sidecar.must(200, "PUT", &path(&ids[2]), &json!({"traffic_percentage": 30})).await;
    sidecar.must(200, "POST", &activate(&ids[2]), &Value::Null).await;
    refused(&sidecar, 409, &ids[2], json!({"traffic_percentage": 31}), "101 %").await;

    // A winner must leave its group before it serves all.
    let test = draft(&sidecar, "t", &ids[..2], &json!({})).await;
    sidecar.must(200, "POST", &format!("{test}/start"), &Value::Null).await;
    let promote = json!({"arm": "variant_a", "reason": "better"});
    let kept = sidecar.must(409, "POST", &format!("{test}/promote"), &promote).await;
    assert!(kept["detail"].as_str().unwrap().contains("\"ab_test_group\": null"), "{kept}");
    sidecar.must(200, "POST", &format!("{}/deactivate", path(&ids[1])), &Value::Null).await;
    let out = sidecar.must(200, "PUT", &path(&ids[1]), &json!({"ab_test_group": null})).await;
    assert_eq!((&out["ab_test_group"], &out["traffic_percentage"]), (&Value::Null, &Value::Null));
    sidecar.must(200, "POST", &format!("{test}/promote"), &promote).await;
    assert_eq!(served(&sidecar, "t", "anybody-else").await.0.split('@').next(), Some("t"));
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_go_into_files_and_come_back_beside_the_active_version() {
    let (_upstream, one) = pair().await;
    let ids = versions(&one, "t", &["one {who}", "two {who}"]).await;
    let share = json!({"ab_test_group": "a", "traffic_percentage": 50});
    one.must(200, "PUT", &path(&ids[1]), &share).await;
    one.must(200, "POST", &format!("{}/activate", path(&ids[1])), &Value::Null).await;
    let files = TempDir::new();
    let files = files.path().to_str().unwrap();
    assert!(command(&one, &["export", files]).await.0);

    let (_upstream, other) = pair().await;
    let (ok, said) = command(&other, &["import", files, "--activate"]).await;
    assert!(ok, "{said}");
    for id in &ids {
        let there = other.must(200, "GET", &path(id), &Value::Null).await;
        assert_eq!(there["is_active"], true, "{there}");
    }
    let moves = other.must(200, "GET", "/templates/t/activations", &Value::Null).await;
    assert_eq!(moves["items"].as_array().unwrap().len(), 1, "{moves}");
}
