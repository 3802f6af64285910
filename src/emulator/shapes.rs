//! Users, memberships and removed things as Clerk shows them in its events (contract section 5).

use serde_json::{Value, json};

use crate::clock::Wall;
use crate::emulator::model::{Membership, Organization, SessionRecord, User};
use crate::emulator::seed::Records;

/// A whole user. Private metadata is part of it: whoever receives an event must not log it.
pub(crate) fn user(user: &User) -> Value {
    let (created, updated) = (user.created_at.as_millis(), user.updated_at.as_millis());
    // An address has no id of its own here: it is named after its user.
    let id = |kind: &str| format!("idn_{}_{kind}", user.id);
    let verified = json!({
        "object": "verification_admin", "status": "verified", "strategy": "admin", "attempts": null, "expire_at": null,
    });
    let verification = |is: bool| if is { verified.clone() } else { Value::Null };
    let emails: Vec<Value> = user
        .email
        .iter()
        .map(|address| {
            json!({
                "object": "email_address", "id": id("email"), "email_address": address, "reserved": false,
                "verification": verification(user.email_verified), "linked_to": [],
                "created_at": created, "updated_at": updated,
            })
        })
        .collect();
    let phones: Vec<Value> = user
        .phone
        .iter()
        .map(|number| {
            json!({
                "object": "phone_number", "id": id("phone"), "phone_number": number, "reserved": false,
                "reserved_for_second_factor": false, "default_second_factor": false,
                "verification": verification(user.phone_verified), "linked_to": [],
                "created_at": created, "updated_at": updated,
            })
        })
        .collect();
    json!({
        "object": "user",
        "id": user.id,
        "external_id": user.external_id,
        "primary_email_address_id": user.email.as_ref().map(|_| id("email")),
        "primary_phone_number_id": user.phone.as_ref().map(|_| id("phone")),
        "primary_web3_wallet_id": null,
        "username": user.username,
        "first_name": user.first_name,
        "last_name": user.last_name,
        "profile_image_url": user.image_url,
        "image_url": user.image_url,
        "has_image": !user.image_url.is_empty(),
        "public_metadata": object(&user.public_metadata),
        "private_metadata": object(&user.private_metadata),
        "unsafe_metadata": object(&user.unsafe_metadata),
        "email_addresses": emails,
        "phone_numbers": phones,
        "web3_wallets": [],
        "passkeys": [],
        "password_enabled": true,
        "two_factor_enabled": user.two_factor_enabled,
        "totp_enabled": user.two_factor_enabled,
        "backup_code_enabled": false,
        "mfa_enabled_at": null,
        "mfa_disabled_at": null,
        "external_accounts": [],
        "saml_accounts": [],
        "enterprise_accounts": [],
        "last_sign_in_at": created,
        "banned": user.banned,
        "locked": user.locked,
        "lockout_expires_in_seconds": null,
        "verification_attempts_remaining": null,
        "updated_at": updated,
        "created_at": created,
        "delete_self_enabled": true,
        "create_organization_enabled": true,
        "create_organizations_limit": null,
        "last_active_at": updated,
        "legal_accepted_at": null,
    })
}

/// A session as events show it: without tasks, with its whole user.
pub(crate) fn session(records: &Records, session: &SessionRecord, now: Wall) -> Value {
    let mut shown = session.to_json(now);
    if let Some(members) = shown.as_object_mut() {
        members.remove("tasks");
        members.insert("user".to_owned(), records.users.get(&session.user_id).map_or(Value::Null, user));
    }
    shown
}

/// A user's place in an organization.
pub(crate) fn membership(organization: &Organization, user: &User, place: &Membership) -> Value {
    json!({
        "object": "organization_membership",
        "id": place.id,
        "role": place.role,
        "permissions": place.permissions,
        "public_metadata": object(&place.public_metadata),
        "created_at": place.created_at.as_millis(),
        "updated_at": place.updated_at.as_millis(),
        "organization": {
            "object": "organization",
            "id": organization.id,
            "name": organization.name,
            "slug": organization.slug,
            "image_url": "",
            "has_image": false,
            "max_allowed_memberships": 5,
            "admin_delete_enabled": true,
            "public_metadata": object(&organization.public_metadata),
            "private_metadata": {},
            "created_at": organization.created_at.as_millis(),
            "updated_at": organization.updated_at.as_millis(),
        },
        "public_user_data": {
            "user_id": user.id,
            "first_name": user.first_name,
            "last_name": user.last_name,
            "profile_image_url": user.image_url,
            "image_url": user.image_url,
            "has_image": !user.image_url.is_empty(),
            "identifier": user.email.as_ref().or(user.username.as_ref()),
            "username": user.username,
        },
    })
}

/// What is left of something that was removed.
pub(crate) fn deleted(object: &str, id: &str, external_id: Option<&str>) -> Value {
    let mut shown = json!({ "object": object, "id": id, "deleted": true });
    if let Some(external_id) = external_id {
        shown["external_id"] = external_id.into();
    }
    shown
}

/// Metadata is an object, also where there is none.
fn object(metadata: &Value) -> Value {
    if metadata.is_object() { metadata.clone() } else { json!({}) }
}
