//! The XMP packet, in which a picture carries its recipe.
//!
//! For: reading and replacing one property, `semblance:recipe`, and leaving the rest of the packet
//! as it is. Not for: XMP at large.

use quick_xml::Reader;
use quick_xml::escape::escape;
use quick_xml::events::Event;

/// The namespace of our property; a name, not an address.
pub const NAMESPACE: &str = "https://github.com/semblance-edit/semblance/ns/1/";
const OPEN: &str = "<rdf:Description rdf:about=\"\" xmlns:semblance=\"https://github.com/semblance-edit/semblance/ns/1/\"><semblance:recipe>";
const CLOSE: &str = "</semblance:recipe></rdf:Description>";
const PROPERTY: &str = "semblance:recipe";

/// The packet with `recipe` (a text) in place of the one it had; a new packet where there is none.
pub fn with_recipe(packet: Option<&str>, recipe: &str) -> String {
    let block = format!("{OPEN}{}{CLOSE}", escape(recipe));
    let mut packet = packet.unwrap_or_default().to_owned();
    while let Some(start) = packet.find(OPEN) {
        let Some(length) = packet.get(start..).and_then(|rest| rest.find(CLOSE)) else {
            break;
        };
        packet.replace_range(start..start + length + CLOSE.len(), "");
    }
    match packet.rfind("</rdf:RDF>") {
        Some(at) => {
            packet.insert_str(at, &block);
            packet
        }
        None => format!(
            "<?xpacket begin=\"\u{feff}\" id=\"W5M0MpCehiHzreSzNTczkc9d\"?>\
             <x:xmpmeta xmlns:x=\"adobe:ns:meta/\">\
             <rdf:RDF xmlns:rdf=\"http://www.w3.org/1999/02/22-rdf-syntax-ns#\">{block}\
             </rdf:RDF></x:xmpmeta><?xpacket end=\"w\"?>"
        ),
    }
}

/// The recipe in a packet: the last one, as an element or (as other programs rewrite it) an
/// attribute.
pub fn recipe_of(packet: &str) -> Option<String> {
    let mut reader = Reader::from_str(packet);
    let mut found = None;
    let mut inside = None::<String>;
    loop {
        match reader.read_event() {
            Err(_) | Ok(Event::Eof) => return found,
            Ok(Event::Start(tag)) if tag.name().as_ref() == PROPERTY => {
                inside = Some(String::new());
            }
            Ok(Event::Start(tag) | Event::Empty(tag)) => {
                if let Ok(Some(attribute)) = tag.try_get_attribute(PROPERTY) {
                    found = unescaped(&attribute.value).or(found);
                }
            }
            // The reader hands out text and references one by one.
            Ok(Event::Text(text)) => {
                if let Some(inside) = &mut inside {
                    inside.push_str(&text);
                }
            }
            Ok(Event::GeneralRef(reference)) => {
                if let Some(inside) = &mut inside {
                    inside.push('&');
                    inside.push_str(&reference);
                    inside.push(';');
                }
            }
            Ok(Event::End(tag)) if tag.name().as_ref() == PROPERTY => {
                found = inside.take().and_then(|text| unescaped(&text)).or(found);
            }
            Ok(_) => {}
        }
    }
}

fn unescaped(text: &str) -> Option<String> {
    quick_xml::escape::unescape(text)
        .ok()
        .map(|text| text.into_owned())
}

/// The packet with an orientation other than upright set to upright, in both of its spellings.
pub fn without_orientation(packet: &str) -> String {
    let mut packet = packet.to_owned();
    for value in 2..=8 {
        for (open, close) in [
            ("tiff:Orientation=\"", "\""),
            ("<tiff:Orientation>", "</tiff:Orientation>"),
        ] {
            let from = format!("{open}{value}{close}");
            if packet.contains(&from) {
                packet = packet.replace(&from, &format!("{open}1{close}"));
            }
        }
    }
    packet
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPE: &str = r#"{"semblance":1,"scene":"a <b> & \"c\" ü"}"#;

    #[test]
    fn a_recipe_comes_back_out_of_a_new_packet() {
        let packet = with_recipe(None, RECIPE);
        assert!(packet.contains(NAMESPACE));
        assert_eq!(recipe_of(&packet).as_deref(), Some(RECIPE));
    }

    #[test]
    fn a_second_recipe_replaces_the_first_and_keeps_the_rest() {
        let packet = with_recipe(None, "{}").replace(
            "</rdf:RDF>",
            "<rdf:Description dc:creator=\"me\"/></rdf:RDF>",
        );
        let packet = with_recipe(Some(&packet), RECIPE);
        assert_eq!(packet.matches("<semblance:recipe>").count(), 1);
        assert!(packet.contains("dc:creator=\"me\""));
        assert_eq!(recipe_of(&packet).as_deref(), Some(RECIPE));
    }

    #[test]
    fn a_recipe_rewritten_as_an_attribute_is_found() {
        let packet = format!(
            "<rdf:RDF><rdf:Description xmlns:semblance=\"x\" semblance:recipe=\"{}\"/></rdf:RDF>",
            escape(RECIPE)
        );
        assert_eq!(recipe_of(&packet).as_deref(), Some(RECIPE));
    }

    #[test]
    fn garbage_has_no_recipe() {
        for packet in [
            "",
            "<",
            "<a><b></a>",
            "semblance:recipe",
            "<semblance:recipe>{",
        ] {
            assert_eq!(recipe_of(packet), None, "{packet}");
        }
    }

    #[test]
    fn orientation_is_reset_in_both_spellings() {
        let packet = "<a tiff:Orientation=\"6\"><tiff:Orientation>3</tiff:Orientation></a>";
        assert_eq!(
            without_orientation(packet),
            "<a tiff:Orientation=\"1\"><tiff:Orientation>1</tiff:Orientation></a>"
        );
    }
}
