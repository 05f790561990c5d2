//! How an endpoint describes itself.

use std::collections::BTreeMap;

use pulse_request::RequestError;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    super::{error::RestError, reply::Cache},
    error::{self, ErrorText},
    param::Param,
};

/// All operations of a document, in the order of their descriptions.
#[derive(Default)]
pub(crate) struct Paths {
    /// With what they mean.
    tags: Vec<(&'static str, &'static str)>,
    /// The tag of what comes.
    subject: &'static str,
    operations: Vec<Operation>,
}

/// A method of a route, and what it answers.
pub(crate) struct Operation {
    method: &'static str,
    template: &'static str,
    tag: &'static str,
    summary: &'static str,
    description: Option<&'static str>,
    /// Those of the path that [`Param::of`] does not know.
    params: BTreeMap<&'static str, Param>,
    queries: Vec<Value>,
    body: Option<Value>,
    /// By status.
    responses: BTreeMap<u16, Value>,
    errors: Vec<ErrorText>,
    schemas: BTreeMap<String, Value>,
    /// Whether it is a question about the chain, which takes `partial`.
    is_read: bool,
}

impl Paths {
    /// What follows is about this subject.
    pub(crate) fn tag(&mut self, name: &'static str, description: &'static str) {
        if !self.tags.iter().any(|(known, _)| *known == name) {
            self.tags.push((name, description));
        }
        self.subject = name;
    }

    /// A question about chain or mempool: GET.
    pub(crate) fn get(&mut self, template: &'static str, summary: &'static str) -> &mut Operation {
        self.add("get", template, summary).read()
    }

    /// A GET of another kind, without `partial`.
    pub(crate) fn own_get(
        &mut self,
        template: &'static str,
        summary: &'static str,
    ) -> &mut Operation {
        self.add("get", template, summary)
    }

    /// A POST.
    pub(crate) fn post(&mut self, template: &'static str, summary: &'static str) -> &mut Operation {
        let operation = self.add("post", template, summary);
        operation.error(RestError::BodyUnreadable {
            what: String::new(),
        })
    }

    /// A DELETE.
    pub(crate) fn delete(
        &mut self,
        template: &'static str,
        summary: &'static str,
    ) -> &mut Operation {
        self.add("delete", template, summary)
    }

    fn add(
        &mut self,
        method: &'static str,
        template: &'static str,
        summary: &'static str,
    ) -> &mut Operation {
        self.operations.push(Operation {
            method,
            template,
            tag: self.subject,
            summary,
            description: None,
            params: BTreeMap::new(),
            queries: Vec::new(),
            body: None,
            responses: BTreeMap::new(),
            errors: Vec::new(),
            schemas: BTreeMap::new(),
            is_read: false,
        });
        self.operations.last_mut().expect("it was just added")
    }

    /// Method and template of each operation.
    #[cfg(test)]
    pub(super) fn routes(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        (self.operations.iter()).map(|operation| (operation.method, operation.template))
    }

    /// Tags, paths and schemas as they stand in a document.
    pub(super) fn finish(self) -> (Value, Value, Value) {
        let mut paths = Map::new();
        let mut schemas = BTreeMap::new();
        for mut operation in self.operations {
            schemas.append(&mut operation.schemas);
            let path = paths.entry(path(operation.template)).or_insert(json!({}));
            let method = operation.method;
            path[method] = operation.finish();
        }
        let tags = self.tags.iter();
        let tags = tags.map(|(name, text)| json!({"name": name, "description": text}));
        (tags.collect(), paths.into(), json!(schemas))
    }
}

/// `/block/:hash` as OpenAPI has it: `/block/{hash}`.
fn path(template: &str) -> String {
    let segments = template.split('/').map(|segment| {
        match segment.strip_prefix(':').or(segment.strip_prefix('*')) {
            Some(name) => format!("{{{name}}}"),
            None => segment.to_owned(),
        }
    });
    segments.collect::<Vec<_>>().join("/")
}

impl Operation {
    /// It is a question about chain or mempool.
    pub(crate) fn read(&mut self) -> &mut Self {
        self.is_read = true;
        self.query(
            "partial",
            "Take what is indexed so far for the whole: the answer of a node that is not synced \
             is drawn from it, and `X-Indexed-Height` says how far that is.",
            &json!({"type": "boolean"}),
        )
    }

    /// It takes the `max_txs` of mempool/electrs, of which `usual` is what a client gets that
    /// says nothing.
    pub(in crate::rest) fn max_txs(&mut self, usual: usize, most: usize) -> &mut Self {
        self.query(
            "max_txs",
            "Not Esplora, but mempool/electrs: entries in the list; what is no number is ignored.",
            &json!({"type": "integer", "minimum": 1, "maximum": most, "default": usual}),
        )
    }

    /// It takes the `after_txid` of mempool/electrs.
    pub(in crate::rest) fn after_txid(&mut self) -> &mut Self {
        self.query(
            "after_txid",
            "Not Esplora, but mempool/electrs: the transaction after which the list begins; what \
             does not parse is ignored.",
            &json!({"type": "string", "pattern": "^[0-9a-fA-F]{64}$"}),
        )
        .error(RestError::AfterTxidNotFound)
    }

    /// More than the summary says.
    pub(crate) fn about(&mut self, description: &'static str) -> &mut Self {
        self.description = Some(description);
        self
    }

    /// A parameter of the path that is not one of the usual ones.
    pub(crate) fn param(&mut self, name: &'static str, param: Param) -> &mut Self {
        self.params.insert(name, param);
        self
    }

    /// An optional key of the query.
    pub(crate) fn query(&mut self, name: &str, description: &str, schema: &Value) -> &mut Self {
        self.queries.push(json!({
            "name": name,
            "in": "query",
            "required": false,
            "description": description,
            "schema": schema,
        }));
        self
    }

    /// The body that a POST needs.
    pub(crate) fn body(
        &mut self,
        content_type: &str,
        description: &str,
        schema: &Value,
    ) -> &mut Self {
        self.body = Some(json!({
            "required": true,
            "description": description,
            "content": {content_type: {"schema": schema}},
        }));
        self
    }

    /// 200: the JSON of a `T`.
    pub(in crate::rest) fn json<T: ToSchema>(&mut self, caches: &[Cache]) -> &mut Self {
        let schema = self.reference::<T>();
        self.ok("application/json", &schema, caches)
    }

    /// 200: a list of `T`.
    pub(in crate::rest) fn list<T: ToSchema>(
        &mut self,
        most: Option<u32>,
        caches: &[Cache],
    ) -> &mut Self {
        let mut schema = json!({"type": "array", "items": self.reference::<T>()});
        if let Some(most) = most {
            schema["maxItems"] = most.into();
        }
        self.ok("application/json", &schema, caches)
    }

    /// 200: a list of what has this schema.
    pub(in crate::rest) fn lists(&mut self, items: &Value, caches: &[Cache]) -> &mut Self {
        let schema = json!({"type": "array", "items": items});
        self.ok("application/json", &schema, caches)
    }

    /// 200: JSON with this schema.
    pub(in crate::rest) fn shaped(&mut self, schema: &Value, caches: &[Cache]) -> &mut Self {
        self.ok("application/json", schema, caches)
    }

    /// A list that can be about some blocks only.
    pub(crate) fn heights(&mut self) -> &mut Self {
        let height = json!({"type": "integer", "minimum": 0, "maximum": u32::MAX});
        self.query("from_height", "Not Esplora: the lowest block.", &height)
            .query("to_height", "Not Esplora: the highest block.", &height)
            .error(RequestError::InvalidNumber)
    }

    /// 200: text of this form.
    pub(in crate::rest) fn text(&mut self, pattern: &str, caches: &[Cache]) -> &mut Self {
        let schema = json!({"type": "string", "pattern": pattern});
        self.ok("text/plain", &schema, caches)
    }

    /// 200: bytes.
    pub(in crate::rest) fn binary(&mut self, caches: &[Cache]) -> &mut Self {
        self.ok("application/octet-stream", &json!({}), caches)
    }

    fn ok(&mut self, content_type: &str, schema: &Value, caches: &[Cache]) -> &mut Self {
        let mut values: Vec<&str> = caches.iter().map(|cache| cache.header()).collect();
        if self.is_read {
            // A part of the chain is not for caches.
            values.push("no-store");
        }
        let mut response = answer(content_type, schema, &values);
        if self.is_read {
            error::add_read_headers(&mut response);
        }
        if caches.contains(&Cache::Long) {
            response["headers"]["ETag"] = json!({
                "description": "Of answers that may be kept for long.",
                "schema": {"type": "string", "pattern": "^(W/)?\"[0-9a-f]{16}\"$"},
            });
            let mut known = json!({
                "description": "What `If-None-Match` names is the answer. No body.",
                "headers": response["headers"],
            });
            known["headers"]["Vary"] = json!({"schema": {"const": "accept-encoding"}});
            self.responses.insert(304, known);
        }
        self.responses.insert(200, response);
        self
    }

    /// 200: JSON with a schema and a `Cache-Control` of its own.
    pub(crate) fn ok_json(&mut self, schema: &Value, cache: &str) -> &mut Self {
        let response = answer("application/json", schema, &[cache]);
        self.responses.insert(200, response);
        self
    }

    /// Any status with any content, for what is neither an answer nor an error of the API.
    pub(crate) fn response(&mut self, status: u16, response: Value) -> &mut Self {
        self.responses.insert(status, response);
        self
    }

    /// A list that is asked for in pages: `limit` and `cursor`, `X-Next-Cursor`.
    pub(crate) fn pages(&mut self) -> &mut Self {
        self.query(
            "limit",
            "Not Esplora: entries on a page; more than the server gives is taken for that.",
            &json!({"type": "integer", "minimum": 1}),
        );
        self.query(
            "cursor",
            "Not Esplora: the value of `X-Next-Cursor` of the page before.",
            &json!({"type": "string", "pattern": "^[0-9a-fA-F]{40}([0-9a-fA-F]{16})?$"}),
        );
        if let Some(response) = self.responses.get_mut(&200) {
            response["headers"]["X-Next-Cursor"] = json!({
                "description": "Where the next page begins; absent on the last one.",
                "schema": {"type": "string", "pattern": "^[0-9a-f]{40}([0-9a-f]{16})?$"},
            });
        }
        self.error(RequestError::InvalidLimit)
            .error(RequestError::InvalidCursor)
            .error(RestError::CursorGone)
    }

    /// One of the errors that this operation has besides those that all have.
    pub(crate) fn error(&mut self, error: impl Into<ErrorText>) -> &mut Self {
        self.errors.push(error.into());
        self
    }

    /// It exists only on nodes with a mempool.
    pub(crate) fn of_mempool(&mut self) -> &mut Self {
        self.error(RestError::NoEndpoint {
            path: String::new(),
        })
    }

    /// A reference to the schema of `T`, which the document then has.
    pub(crate) fn reference<T: ToSchema>(&mut self) -> Value {
        let mut nested = Vec::new();
        T::schemas(&mut nested);
        nested.push((T::name().into_owned(), T::schema()));
        for (name, schema) in nested {
            self.schemas.insert(name, json!(schema));
        }
        json!({"$ref": format!("#/components/schemas/{}", T::name())})
    }

    fn finish(self) -> Value {
        let mut errors: BTreeMap<u16, Vec<Value>> = BTreeMap::new();
        let mut caches: BTreeMap<u16, &str> = BTreeMap::new();
        let mut parameters = Vec::new();
        let mut own = self.params;
        let mut all = Vec::new();
        for segment in self.template.split('/') {
            let Some(name) = segment.strip_prefix(':').or(segment.strip_prefix('*')) else {
                continue;
            };
            let param = match own.remove(name) {
                Some(param) => param,
                None => Param::of(self.template, name),
            };
            parameters.push(json!({
                "name": name,
                "in": "path",
                "required": true,
                "description": param.description,
                "schema": param.schema,
            }));
            all.extend(param.errors);
        }
        all.extend(self.errors);
        for error in all {
            let ErrorText {
                status, schemas, ..
            } = error;
            if let Some(cache) = error.cache {
                caches.insert(status, cache);
            }
            let texts = errors.entry(status).or_default();
            for schema in schemas {
                if !texts.contains(&schema) {
                    texts.push(schema);
                }
            }
        }
        parameters.extend(self.queries);
        let mut responses = Map::new();
        for (status, name) in error::ALWAYS {
            let shared = json!({"$ref": format!("#/components/responses/{name}")});
            responses.insert(status.to_owned(), shared);
        }
        for (status, texts) in errors {
            let about = match status {
                400 => "The request cannot be understood, or is refused.",
                404 => "There is no such thing.",
                410 => "The page's place in the chain is gone.",
                422 => "The list cannot begin there, or the body has too many entries.",
                _ => "An error.",
            };
            let mut response = error::response(about, &texts);
            if self.is_read {
                error::add_read_headers(&mut response);
            }
            if let Some(cache) = caches.get(&status) {
                response["headers"]["Cache-Control"] = json!({
                    "description": "Of some of these errors.",
                    "schema": {"const": cache},
                });
            }
            responses.insert(status.to_string(), response);
        }
        for (status, response) in self.responses {
            responses.insert(status.to_string(), response);
        }
        let mut operation = json!({
            "operationId": id(self.method, self.template),
            "tags": [self.tag],
            "summary": self.summary,
            "parameters": parameters,
            "responses": responses,
        });
        if let Some(description) = self.description {
            operation["description"] = description.into();
        }
        if let Some(body) = self.body {
            operation["requestBody"] = body;
        }
        operation
    }
}

/// A response with content that caches may keep as one of `caches` says.
fn answer(content_type: &str, schema: &Value, caches: &[&str]) -> Value {
    json!({
        "description": "The answer.",
        "headers": {
            "Cache-Control": {
                "description": "How long a cache may keep it.",
                "required": true,
                "schema": {"type": "string", "enum": caches},
            },
        },
        "content": {content_type: {"schema": schema}},
    })
}

/// A name for the operation that program code can have: `get_block_hash_txs`.
fn id(method: &str, template: &str) -> String {
    let words = template.split(|c: char| !c.is_ascii_alphanumeric());
    let words = words.filter(|word| !word.is_empty());
    std::iter::once(method)
        .chain(words)
        .collect::<Vec<_>>()
        .join("_")
}
