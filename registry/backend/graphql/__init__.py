"""A lenient GraphQL executor on graphql-core's parser: no schema, no validation, all counted."""
