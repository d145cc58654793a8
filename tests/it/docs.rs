//! The documents agree with the program: the rules that they show can be loaded, and they name all
//! columns and all reasons for rejects.

use strongroom_alerts::RuleSet;
use strongroom_lines::Reason;
use strongroom_schemas::Table;

fn document(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn rules_of_the_guide_load() {
    let guide = document("docs/rules.md");
    let examples: Vec<&str> = guide
        .split("```yaml\n")
        .skip(1)
        .filter_map(|block| block.split("```").next())
        .filter(|block| block.starts_with("title:") && !block.contains("\nfilter:"))
        .collect();
    assert_eq!(examples.len(), 5, "examples that are whole rules");
    for example in examples {
        let rules = RuleSet::from_yaml("docs/rules.md", example).unwrap_or_else(|error| panic!("{error}"));
        assert!(rules.rules().iter().any(|rule| rule.alerts), "an example that never alerts");
    }
}

#[test]
fn format_names_every_column_and_reason() {
    let format = document("docs/format.md");
    for table in Table::ALL {
        for field in table.file_schema().fields() {
            assert!(format.contains(&format!("`{}`", field.name())), "{}.{}", table.name(), field.name());
        }
    }
    for reason in Reason::ALL {
        assert!(format.contains(&format!("`{reason}`")), "{reason}");
    }
}
