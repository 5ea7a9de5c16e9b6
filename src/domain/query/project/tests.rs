use serde_json::{Value, json};

use super::super::{ItemType, testing::query};

fn twin() -> Value {
    json!({
        "deviceId": "d", "version": 3, "tags": {"site": "north", "odd name": 1, "none": null},
        "properties": {"desired": {"level": 1, "$version": 2, "$metadata": {"$lastUpdated": "2031"}}, "reported": {"level": 2}},
    })
}

#[test]
fn a_star_is_the_whole_twin() {
    let all = query("SELECT * FROM devices");
    assert_eq!((all.row(&twin()), all.item_type(), all.item_type().name()), (twin(), ItemType::Twin, "twin"));
}

#[test]
fn columns_have_the_names_that_the_query_gives_and_what_is_missing_has_none() {
    for (selected, row) in [
        ("DeviceID", json!({"deviceId": "d"})),
        ("deviceId AS DeviceID", json!({"DeviceID": "d"})),
        ("tags.site, version", json!({"site": "north", "version": 3})),
        ("properties.desired.level AS want, properties.reported.level", json!({"want": 1, "level": 2})),
        ("tags.nothing, moduleId", json!({})),
        ("tags.none", json!({"none": null})),
        ("tags.[[odd name]]", json!({"odd name": 1})),
        ("properties.desired.$version", json!({"$version": 2})),
        ("properties.desired.$metadata.$lastUpdated AS at", json!({"at": "2031"})),
        ("tags", json!({"tags": {"site": "north", "odd name": 1, "none": null}})),
        ("properties.Desired", json!({})),
    ] {
        let query = query(&format!("SELECT {selected} FROM devices"));
        assert_eq!((query.row(&twin()), query.item_type().name()), (row, "raw"), "{selected}");
    }
}
