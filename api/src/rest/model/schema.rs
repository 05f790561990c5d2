//! Schemas of strings, for the description of the API.

use super::Id;

/// Gives a type the schema of a string of some form.
macro_rules! string_schema {
    ($type:ty, $name:literal, $description:literal, $form:expr) => {
        impl utoipa::PartialSchema for $type {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                use utoipa::openapi::schema::{ObjectBuilder, Type};
                let string = ObjectBuilder::new().schema_type(Type::String);
                let form: fn(ObjectBuilder) -> ObjectBuilder = $form;
                form(string.description(Some($description))).into()
            }
        }

        impl utoipa::ToSchema for $type {
            fn name() -> std::borrow::Cow<'static, str> {
                std::borrow::Cow::Borrowed($name)
            }
        }
    };
}
pub(in crate::rest) use string_schema;

/// Bytes.
pub(in crate::rest) enum Hex {}

/// Why a transaction left the mempool.
pub(super) enum RemovalReasonName {}

string_schema!(
    Id,
    "Hash",
    "A hash in display order (its bytes reversed).",
    |string| string.pattern(Some("^[0-9a-f]{64}$"))
);
string_schema!(Hex, "Hex", "Bytes as lower-case hex digits.", |string| {
    string.pattern(Some("^([0-9a-f]{2})*$"))
});
string_schema!(
    RemovalReasonName,
    "RemovalReason",
    "Why a transaction left the mempool: others took its inputs for a better fee, a confirmed \
     transaction took them, it was there too long, the mempool was full, or it did not fit the \
     chain any more.",
    |string| string.enum_values(Some([
        "replaced",
        "conflict",
        "expired",
        "size_limit",
        "reorg",
        "other"
    ]))
);
