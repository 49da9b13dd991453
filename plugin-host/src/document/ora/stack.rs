//! `stack.xml`: which layers there are, and edits of its text that leave the rest of it alone.
//!
//! Not for: pixels. The text is kept as it came; a new layer is spliced into it, so that what other
//! programs wrote there (and we do not know) survives.

use std::ops::Range;

use quick_xml::Reader;
use quick_xml::XmlVersion;
use quick_xml::escape::escape;
use quick_xml::events::{BytesStart, Event};

use super::merge::Mode;
use crate::limits;

/// A layer of a document.
#[derive(Clone, Debug, PartialEq)]
pub struct Layer {
    /// Its name; may be empty.
    pub name: String,
    /// Its entry in the archive.
    pub src: String,
    /// Left edge on the canvas.
    pub x: i64,
    /// Upper edge on the canvas.
    pub y: i64,
    /// 0..=1.
    pub opacity: f32,
    /// Whether it is shown.
    pub visible: bool,
    /// How it is laid over what is below.
    pub mode: Mode,
    /// Whether the program that saved it had it selected.
    pub selected: bool,
    /// Where its tag stands in the text.
    tag: Range<usize>,
}

/// A layer or a group of them.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A picture.
    Layer(Layer),
    /// Nodes merged together, uppermost first.
    Group(Group),
}

/// A `<stack>`.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Uppermost first.
    pub nodes: Vec<Node>,
    /// 0..=1.
    pub opacity: f32,
    /// Whether it is shown.
    pub visible: bool,
    /// How the merged group is laid over what is below.
    pub mode: Mode,
    /// Whether `isolation` asks that its layers see nothing below the group.
    pub isolated: bool,
}

/// The whole file.
#[derive(Clone, Debug)]
pub struct Stack {
    /// The text.
    pub xml: String,
    /// Canvas width.
    pub width: u32,
    /// Canvas height.
    pub height: u32,
    /// Uppermost first.
    pub nodes: Vec<Node>,
    /// Where the outermost stack's first layer stands in the text; none where it is an empty tag.
    top: Option<usize>,
}

impl Stack {
    /// Reads the text; unknown tags and attributes are passed over.
    pub fn parse(xml: String) -> Result<Stack, String> {
        let bad = |what: String| format!("stack.xml: {what}");
        let mut reader = Reader::from_str(&xml);
        let mut size = None;
        let mut root = None;
        let mut top = None;
        let mut open: Vec<Group> = Vec::new();
        let mut count = 0;
        loop {
            let start = position(&reader);
            let event = reader
                .read_event()
                .map_err(|error| bad(format!("not well-formed: {error}")))?;
            let (tag, empty) = match &event {
                Event::Start(tag) => (tag, false),
                Event::Empty(tag) => (tag, true),
                Event::End(end) if end.name().as_ref() == "stack" => {
                    close(&mut open, &mut root);
                    continue;
                }
                Event::DocType(_) => return Err(bad("a DOCTYPE is not allowed".to_owned())),
                Event::Eof => break,
                _ => continue,
            };
            match tag.name().as_ref() {
                "image" if size.is_none() => {
                    let side = |name| -> Result<u32, String> {
                        let text = attribute(tag, name)?.unwrap_or_default();
                        text.trim()
                            .parse()
                            .map_err(|_| format!("image {name} = {text:?}: must be a number"))
                    };
                    size = Some((side("w").map_err(bad)?, side("h").map_err(bad)?));
                }
                "stack" | "layer" => {
                    count += 1;
                    if count > limits::LAYERS {
                        return Err(bad(format!("more than {} layers", limits::LAYERS)));
                    }
                    if tag.name().as_ref() == "layer" {
                        let range = start..position(&reader);
                        let layer = layer(tag, range).map_err(bad)?;
                        if let Some(group) = open.last_mut() {
                            group.nodes.push(Node::Layer(layer));
                        }
                    } else {
                        if open.len() >= limits::GROUP_DEPTH {
                            return Err(bad(format!(
                                "groups nested deeper than {}",
                                limits::GROUP_DEPTH
                            )));
                        }
                        if open.is_empty() && root.is_none() && !empty {
                            top = Some(position(&reader));
                        }
                        open.push(group(tag).map_err(bad)?);
                        if empty {
                            close(&mut open, &mut root);
                        }
                    }
                }
                _ => {}
            }
        }
        let (width, height) = size.ok_or_else(|| bad("no <image>".to_owned()))?;
        crate::pixels::checked_size(width, height, 16).map_err(bad)?;
        let nodes = root.ok_or_else(|| bad("no <stack>".to_owned()))?.nodes;
        Ok(Stack {
            xml,
            width,
            height,
            nodes,
            top,
        })
    }

    /// Every layer, uppermost first, groups opened.
    pub fn layers(&self) -> Vec<&Layer> {
        fn walk<'a>(nodes: &'a [Node], into: &mut Vec<&'a Layer>) {
            for node in nodes {
                match node {
                    Node::Layer(layer) => into.push(layer),
                    Node::Group(group) => walk(&group.nodes, into),
                }
            }
        }
        let mut layers = Vec::new();
        walk(&self.nodes, &mut layers);
        layers
    }

    /// The stack with a layer spliced in directly above `below`, which is hidden on request.
    pub fn with_layer_above(
        &self,
        below: &Layer,
        name: &str,
        src: &str,
        hide_below: bool,
    ) -> Result<Stack, String> {
        let tag = self.xml.get(below.tag.clone()).unwrap_or_default();
        let before = self.xml.get(..below.tag.start).unwrap_or_default();
        let indent = before
            .rsplit('\n')
            .next()
            .filter(|line| line.trim().is_empty())
            .unwrap_or_default();
        let new = format!(
            "<layer name=\"{}\" src=\"{}\" x=\"{}\" y=\"{}\" opacity=\"{}\" visibility=\"visible\" composite-op=\"{}\"/>\n{indent}",
            escape(name),
            escape(src),
            below.x,
            below.y,
            below.opacity,
            escape(below.mode.name()),
        );
        let mut xml = self.xml.clone();
        if hide_below {
            xml.replace_range(below.tag.clone(), &hidden(tag)?);
        }
        xml.insert_str(below.tag.start, &new);
        Stack::parse(xml)
    }
}

impl Stack {
    /// The stack with a layer spliced in above all others, at the canvas' origin.
    pub fn with_layer_on_top(&self, name: &str, src: &str) -> Result<Stack, String> {
        let top = self
            .top
            .ok_or("stack.xml: its outermost <stack/> is empty")?;
        let mut xml = self.xml.clone();
        xml.insert_str(
            top,
            &format!(
                "\n<layer name=\"{}\" src=\"{}\" x=\"0\" y=\"0\"/>",
                escape(name),
                escape(src)
            ),
        );
        Stack::parse(xml)
    }
}

/// Where the reader stands, as an index into the text.
fn position(reader: &Reader<&[u8]>) -> usize {
    usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX)
}

/// Ends the innermost group.
fn close(open: &mut Vec<Group>, root: &mut Option<Group>) {
    let Some(group) = open.pop() else { return };
    match open.last_mut() {
        Some(parent) => parent.nodes.push(Node::Group(group)),
        None => {
            root.get_or_insert(group);
        }
    }
}

/// The tag with `visibility="hidden"`; its other attributes as they were.
fn hidden(tag: &str) -> Result<String, String> {
    let mut reader = Reader::from_str(tag);
    // An open tag alone is never closed; only its start is read.
    let (start, close) = match reader.read_event() {
        Ok(Event::Start(start)) => (start, ">"),
        Ok(Event::Empty(start)) => (start, "/>"),
        _ => return Err("stack.xml: a layer's tag is not where it was".to_owned()),
    };
    let mut text = format!("<{}", start.name().as_ref());
    for attribute in start.attributes() {
        let attribute = attribute.map_err(|error| format!("stack.xml: {error}"))?;
        if attribute.key.as_ref() == "visibility" {
            continue;
        }
        let quote = if attribute.value.contains('"') {
            '\''
        } else {
            '"'
        };
        text.push_str(&format!(
            " {}={quote}{}{quote}",
            attribute.key.as_ref(),
            attribute.value
        ));
    }
    text.push_str(" visibility=\"hidden\"");
    text.push_str(close);
    Ok(text)
}

fn attribute(tag: &BytesStart<'_>, name: &str) -> Result<Option<String>, String> {
    let attribute = tag
        .try_get_attribute(name)
        .map_err(|error| format!("not well-formed: {error}"))?;
    attribute
        .map(|attribute| {
            attribute
                .normalized_value(XmlVersion::Implicit1_0)
                .map(|value| value.into_owned())
                .map_err(|error| format!("{name}: {error}"))
        })
        .transpose()
}

/// A number, or `default` where it is missing.
fn number(tag: &BytesStart<'_>, name: &str, default: f64) -> Result<f64, String> {
    match attribute(tag, name)? {
        None => Ok(default),
        Some(text) => text
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite() && value.abs() < 1e9)
            .ok_or_else(|| format!("{name} = {text:?}: must be a number")),
    }
}

fn opacity(tag: &BytesStart<'_>) -> Result<f32, String> {
    Ok(number(tag, "opacity", 1.0)?.clamp(0.0, 1.0) as f32)
}

fn visible(tag: &BytesStart<'_>) -> Result<bool, String> {
    Ok(attribute(tag, "visibility")?.as_deref() != Some("hidden"))
}

fn mode(tag: &BytesStart<'_>) -> Result<Mode, String> {
    Ok(attribute(tag, "composite-op")?.map_or(Mode::NORMAL, |name| Mode::named(&name)))
}

fn layer(tag: &BytesStart<'_>, range: Range<usize>) -> Result<Layer, String> {
    Ok(Layer {
        name: attribute(tag, "name")?.unwrap_or_default(),
        src: attribute(tag, "src")?.unwrap_or_default(),
        x: number(tag, "x", 0.0)?.round() as i64,
        y: number(tag, "y", 0.0)?.round() as i64,
        opacity: opacity(tag)?,
        visible: visible(tag)?,
        mode: mode(tag)?,
        selected: attribute(tag, "selected")?.as_deref() == Some("true"),
        tag: range,
    })
}

fn group(tag: &BytesStart<'_>) -> Result<Group, String> {
    Ok(Group {
        nodes: Vec::new(),
        opacity: opacity(tag)?,
        visible: visible(tag)?,
        mode: mode(tag)?,
        isolated: attribute(tag, "isolation")?.as_deref() == Some("isolate"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const XML: &str = "<?xml version='1.0'?>\n<image w=\"4\" h='3'>\n <stack>\n  <layer name='a &amp; b' src='data/1.png' odd='\"'/>\n  <stack opacity='0.5'>\n   <layer name=\"c\" src=\"data/2.png\" x=\"-3\" y=\"2\" selected=\"true\"></layer>\n  </stack>\n </stack>\n</image>";

    #[test]
    fn layers_are_found_in_groups_with_their_offsets() {
        let stack = Stack::parse(XML.to_owned()).unwrap();
        let layers = stack.layers();
        assert_eq!(layers.len(), 2);
        assert_eq!(layers[0].name, "a & b");
        assert_eq!((layers[1].x, layers[1].y), (-3, 2));
        assert!(layers[1].selected);
    }

    #[test]
    fn a_new_layer_leaves_the_rest_of_the_text_alone() {
        let stack = Stack::parse(XML.to_owned()).unwrap();
        let below = stack.layers()[1].clone();
        let new = stack
            .with_layer_above(&below, "sunset \"0.8\"", "data/3.png", false)
            .unwrap();
        let spliced = "<layer name=\"sunset &quot;0.8&quot;\" src=\"data/3.png\" x=\"-3\" y=\"2\" opacity=\"1\" visibility=\"visible\" composite-op=\"svg:src-over\"/>\n   ";
        assert_eq!(new.xml.replace(spliced, ""), XML);
        assert_eq!(new.layers()[1].name, "sunset \"0.8\"");
        assert_eq!(new.layers()[2].name, "c");
    }

    #[test]
    fn hiding_a_layer_keeps_its_other_attributes() {
        let stack = Stack::parse(XML.to_owned()).unwrap();
        let below = stack.layers()[0].clone();
        let new = stack
            .with_layer_above(&below, "n", "data/3.png", true)
            .unwrap();
        assert!(!new.layers()[1].visible);
        assert!(new.xml.contains("odd='\"'"), "{}", new.xml);
        let open = stack.layers()[1].clone();
        let new = stack
            .with_layer_above(&open, "n", "data/3.png", true)
            .unwrap();
        assert!(!new.layers()[2].visible);
    }

    #[test]
    fn a_layer_on_top_stands_before_all_others() {
        let stack = Stack::parse(XML.to_owned()).unwrap();
        let new = stack.with_layer_on_top("a<b", "data/3.png").unwrap();
        assert_eq!(new.layers()[0].name, "a<b");
        assert_eq!((new.layers()[0].x, new.layers().len()), (0, 3));
        let line = "\n<layer name=\"a&lt;b\" src=\"data/3.png\" x=\"0\" y=\"0\"/>";
        assert_eq!(new.xml.replace(line, ""), XML);
        let empty = Stack::parse("<image w='4' h='3'><stack/></image>".to_owned()).unwrap();
        assert!(empty.with_layer_on_top("a", "b").is_err());
    }

    #[test]
    fn bad_stacks_are_refused() {
        for xml in [
            "",
            "<image w='4' h='3'/>",
            "<image w='x' h='3'><stack/></image>",
            "<image w='0' h='3'><stack/></image>",
            "<image w='9999999' h='9999999'><stack/></image>",
            "<image w='4' h='3'><stack></image>",
            "<!DOCTYPE a [<!ENTITY b 'c'>]><image w='4' h='3'><stack/></image>",
            "<image w='4' h='3'><stack><layer opacity='NaN'/></stack></image>",
        ] {
            assert!(Stack::parse(xml.to_owned()).is_err(), "{xml}");
        }
    }

    #[test]
    fn a_tower_of_groups_is_refused_before_it_costs_the_stack() {
        let xml = format!("<image w='4' h='3'>{}", "<stack>".repeat(100_000));
        assert!(Stack::parse(xml).unwrap_err().contains("nested"));
    }
}
