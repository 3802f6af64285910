-- Two tenants in one database. Run once, by a superuser; the application never is one.
--   psql --set=password=... -f schema.sql
begin;

create role app_owner nologin;                          -- owns the tables, and is subject to their policies too
create role authenticator login noinherit password :'password';  -- PostGraphile's own; it can do nothing but become one of these:
create role anonymous nologin;
create role member nologin;
create role admin nologin;
grant anonymous, member, admin to authenticator;

create schema app authorization app_owner;
grant usage on schema app to anonymous, member, admin;
set local role app_owner;

-- What the verified token says. PostGraphile sets these for one transaction; without them they are null, which is
-- equal to nothing.
create function app.current_org() returns text language sql stable
  return nullif(current_setting('jwt.claims.org_id', true), '');
create function app.current_person() returns text language sql stable
  return nullif(current_setting('jwt.claims.sub', true), '');
comment on function app.current_org() is '@behavior -queryField';
comment on function app.current_person() is '@behavior -queryField';

create table app.notes (
  id bigint primary key generated always as identity,
  org_id text not null default app.current_org(),
  author text not null default app.current_person(),
  body text not null
);
-- What subscribers are told. It is a table so that one who was away can ask for what it missed.
create table app.note_events (
  id bigint primary key generated always as identity,
  org_id text not null,
  note_id bigint not null,
  kind text not null,
  body text not null
);
create index on app.notes (org_id, id);
create index on app.note_events (org_id, id);
comment on table app.note_events is '@behavior -insert -update -delete';

alter table app.notes enable row level security;
alter table app.notes force row level security;
alter table app.note_events enable row level security;
alter table app.note_events force row level security;

-- No policy names anonymous: it may ask, and gets no row.
create policy own_organization on app.notes for select to member, admin using (org_id = app.current_org());
create policy own_name on app.notes for insert to member, admin
  with check (org_id = app.current_org() and author = app.current_person());
create policy change_own on app.notes for update to member
  using (org_id = app.current_org() and author = app.current_person())
  with check (org_id = app.current_org() and author = app.current_person());
create policy remove_own on app.notes for delete to member
  using (org_id = app.current_org() and author = app.current_person());
create policy change_any on app.notes for update to admin
  using (org_id = app.current_org()) with check (org_id = app.current_org());
create policy remove_any on app.notes for delete to admin using (org_id = app.current_org());

create policy own_organization on app.note_events for select to member, admin using (org_id = app.current_org());
-- The trigger below runs as the owner, who is held to this too.
create policy as_they_happen on app.note_events for insert to app_owner with check (org_id = app.current_org());

grant select on app.notes, app.note_events to anonymous, member, admin;
grant insert (body), update (body), delete on app.notes to member, admin;

-- One writer of a tenant's events at a time, until it commits: so the ids of a tenant's events come into sight in
-- their order, and whoever has seen one has seen all before it.
create function app.tell() returns trigger language plpgsql security definer set search_path = '' as $$
declare
  note app.notes := case tg_op when 'DELETE' then old else new end;
begin
  perform pg_catalog.pg_advisory_xact_lock(pg_catalog.hashtextextended(note.org_id, 0));
  insert into app.note_events (org_id, note_id, kind, body) values (note.org_id, note.id, pg_catalog.lower(tg_op), note.body);
  -- No content: that is read from the table, by the role and under the policies of each subscriber.
  perform pg_catalog.pg_notify('notes:' || note.org_id, '');
  return null;
end $$;
revoke execute on function app.tell() from public;
create trigger tell after insert or update or delete on app.notes for each row execute function app.tell();

commit;
